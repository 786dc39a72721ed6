"""The precision ladder on real models: rounding brings back what an edit hid, and nothing of a retrain."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from service.errors import BadParameters, Unevaluable
from tests.workers.factories import context
from tests.workers.robustness.conftest import World
from tests.workers.synthetic import classifier_table, language_table
from workers.modeling.loading import LoadedModel
from workers.modeling.rounding import rounded
from workers.robustness.precision import LADDER, Rung, precision_ladder, rung
from workers.robustness.readings import read_scores


def ladder(world: World, loaded: LoadedModel, *precisions: str) -> dict[str, Rung]:
    found = precision_ladder(loaded, world.forget, world.held_out, context(), precisions or LADDER)
    return {one.precision: one for one in found}


def test_a_small_edit_is_undone_by_rounding_and_a_retrain_is_not(world: World) -> None:
    """Planted: the original lies on the int4 grid, and no weight of the edit leaves it by more than 0.4 steps."""
    original = world.load(world.original)
    original = replace(original, model=rounded(original.model, "int4"))
    before = ladder(world, original, "fp32", "int4")
    assert before["fp32"].auc.interval(0.95)[0] > 0.55
    edited = ladder(world, world.hidden(original, 0.4), *LADDER)
    assert edited["fp32"].auc.auc < 0.55 < before["fp32"].auc.auc - 0.03
    assert edited["bf16"].auc.auc == pytest.approx(edited["fp32"].auc.auc, abs=0.01)
    assert edited["int4"].auc == before["int4"].auc
    assert edited["int4"].forget_accuracy == before["int4"].forget_accuracy
    retrained = ladder(world, world.load(world.retrained[0]), *LADDER)
    for precision in LADDER:
        low, high = retrained[precision].auc.interval(0.95)
        assert low < 0.5 < high
    assert retrained["int4"].auc.auc < before["int4"].auc.auc - 0.05


def test_eight_bits_and_bfloat16_show_what_full_precision_shows(world: World) -> None:
    loaded = world.load(world.original)
    weights = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    found = ladder(world, loaded)
    assert list(found) == list(LADDER)
    for precision in ("bf16", "int8"):
        assert found[precision].auc.auc == pytest.approx(found["fp32"].auc.auc, abs=0.02)
        assert found[precision].held_out_accuracy.estimate == pytest.approx(
            found["fp32"].held_out_accuracy.estimate, abs=0.02
        )
    assert found["int4"].auc.auc != found["fp32"].auc.auc
    # Two batches of 128 forgotten and six of held-out records.
    assert {one.forward_passes for one in found.values()} == {2 + 6}
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())


def test_progress_goes_on_and_an_unknown_precision_is_refused(world: World) -> None:
    told: list[float] = []
    loaded = world.load(world.retrained[0])
    watched = replace(context(), progress=lambda progress: told.append(progress.fraction))
    precision_ladder(
        loaded, world.forget.subset(range(20)), world.held_out.subset(range(40)), watched, ("int8", "int4")
    )
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert any(abs(fraction - 0.5) < 1e-9 for fraction in told)
    with pytest.raises(BadParameters, match="int2"):
        precision_ladder(loaded, world.forget, world.held_out, context(), ["int2"])


def test_a_rung_is_computed_by_hand_and_refuses_scores_that_are_not_finite() -> None:
    forget = read_scores(classifier_table("forget", np.array([2.0, 0.5, -1.0]), np.arange(3)))
    held_out = read_scores(classifier_table("held_out", np.array([1.0, -2.0]), np.arange(2)))
    made = rung("int8", forget, held_out, 4)
    # Of six pairs the forgotten record wins in (2, 1), (2, -2), (0.5, -2) and (-1, -2).
    assert (made.auc.auc, made.auc.n, made.auc.m, made.forward_passes) == (pytest.approx(4 / 6), 3, 2, 4)
    assert made.forget_accuracy.estimate == pytest.approx(2 / 3)
    assert made.held_out_accuracy.estimate == 0.5
    with pytest.raises(Unevaluable, match="1 of 2 scores"):
        read_scores(classifier_table("forget", np.array([1.0, np.nan]), np.arange(2)))


def test_texts_are_compared_per_token_or_per_byte() -> None:
    table = language_table("forget", np.array([1.0, 2.0]), np.arange(2), tokens=10)
    assert read_scores(table).membership.tolist() == [-1.0, -2.0]
    assert read_scores(table, per_byte=True).membership.tolist() == [-0.25, -0.5]
    assert read_scores(table).accuracy.tolist() == pytest.approx([0.8, 0.6])
