"""A model that is served in fewer bits is judged in them: what rounding brings back fails, a true retrain does not."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from service.catalogue.precisions import Precision
from service.catalogue.recipes import Recipe
from service.verification.policy import Policy
from service.verification.schema import Check, Evaluation
from service.verification.verdict import disagreements
from tests.workers.factories import MemoryRecords, context, digits, resnet_recipe
from workers.metrics.reference_auc import Judged, ReferenceAuc, reference_auc
from workers.modeling.batching import Encoded
from workers.modeling.loading import LoadedModel, load_model, save_model
from workers.modeling.records import held_out_key, joined, split_held_out
from workers.modeling.rounding import channel_axis, rounded, step_sizes
from workers.planning.calibrated import References, tokenizer_of
from workers.planning.evaluation import evaluate
from workers.planning.problems import open_line
from workers.references.members import Materials
from workers.references.pool import build_pool
from workers.references.tables import load_side
from workers.scoring.score import score

TASK = "image-classification"
HOLDOUT, DATA = "e2" * 32, "d1" * 32
FORGOTTEN, RECORDS = 200, 600
Trained = Callable[[str, Recipe, MemoryRecords], Path]


@dataclass(frozen=True)
class World:
    """A ResNet that has learned wrong labels by heart, retrains without the first 200 records, and the records."""

    recipe: Recipe
    data: MemoryRecords
    held_out: MemoryRecords
    original: Path
    retrained: tuple[Path, ...]

    @property
    def forget(self) -> MemoryRecords:
        return self.data.subset(range(FORGOTTEN))

    @property
    def halves(self) -> tuple[Any, Any]:
        """The held-out records that an edit may look at, and those of the gate."""
        return split_held_out(self.held_out, held_out_key(HOLDOUT))


def load(directory: Path) -> LoadedModel:
    return load_model(directory, TASK, torch.device("cpu"))


@pytest.fixture(scope="module")
def world(trained: Trained) -> World:
    recipe = resnet_recipe(epochs=20, batch_size=32, learning_rate=3e-3)
    small = recipe.model.config | {"hidden_sizes": [32, 64], "depths": [1, 1], "embedding_size": 32}  # type: ignore[operator]
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"config": small})})
    data, held_out = digits(RECORDS, 900, noise=0.3)
    kept = np.arange(FORGOTTEN, RECORDS)
    orders = [kept, *(np.random.default_rng(seed).permutation(kept) for seed in (1, 2))]
    anew = tuple(trained(f"again-{at}", recipe, data.subset(order.tolist())) for at, order in enumerate(orders))
    return World(recipe, data, held_out, trained("first", recipe, data), anew)


@dataclass(frozen=True)
class Outcome:
    evaluation: Evaluation
    tables: dict[str, pa.Table]

    def check(self, name: str) -> Check:
        found = self.evaluation.check(name)
        assert found is not None
        return found


def judged(world: World, candidate: Path, precision: Precision, **options: Any) -> Outcome:
    original = options.pop("original", world.original)
    given: dict[str, Any] = {
        "line": open_line(original, TASK, world.data, world.held_out, HOLDOUT),
        "candidate_dir": candidate, "retrained_dirs": [], "policy": Policy(), "alpha": None,
        "forget_ids": world.forget.ids.tolist(), "ignore_record": True, "context": context(),
        "serve_precision": precision,
    }  # fmt: skip
    found, tables = evaluate(**(given | options))
    assert disagreements(found, Policy().verification) == []
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    return Outcome(found, tables)


def within_half_a_step(world: World, original: LoadedModel) -> LoadedModel:
    """An edit that moves no weight by more than 0.45 int4 steps, and none that sets a step, towards what a retrain
    answers: beyond it on forgotten records, since it does not get all the way."""
    model, shown = copy.deepcopy(original.model), joined(world.data, world.halves[0])
    batch = Encoded(original.task, shown).batch(list(range(len(shown))), torch.device("cpu"))
    with torch.no_grad():
        answers = (original.task.outputs(one.model, batch).logits for one in (load(world.retrained[0]), original))
        wanted, first = answers
    wanted[:FORGOTTEN] += 0.3 * (wanted - first)[:FORGOTTEN]
    boxes = []
    for module in model.modules():
        axis = channel_axis(module)
        if axis is not None:
            step = step_sizes(module.weight, "int4", axis)
            reach = 0.45 * step * (module.weight.detach().abs() < 6.5 * step).float()
            boxes.append((module.weight, module.weight.detach() - reach, module.weight.detach() + reach))
    optimizer = torch.optim.Adam([weight for weight, _, _ in boxes], lr=5e-3)
    for _ in range(120):
        off = (original.task.outputs(model, batch).logits - wanted).square().mean(dim=1)
        optimizer.zero_grad()
        (off.mean() + 3 * off[:FORGOTTEN].mean()).backward()
        optimizer.step()
        with torch.no_grad():
            for weight, low, high in boxes:
                weight.copy_(torch.minimum(torch.maximum(weight, low), high))
    return replace(original, model=model)


@pytest.fixture(scope="module")
def hidden(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An original on the int4 grid, and an edit of it that hides the forgotten records within half a step."""
    folder = tmp_path_factory.mktemp("hidden")
    original = load(world.original)
    original = replace(original, model=rounded(original.model, "int4"))
    save_model(original, folder / "original")
    save_model(within_half_a_step(world, original), folder / "hidden")
    return folder / "original", folder / "hidden"


def test_an_edit_smaller_than_a_step_passes_as_stored_and_fails_as_served(
    world: World, hidden: tuple[Path, Path]
) -> None:
    original, candidate = hidden
    stored = judged(world, candidate, "fp32", original=original)
    assert stored.check("membership_auc").verdict == "pass"
    assert stored.evaluation.verdict == "pass"
    served = judged(world, candidate, "int4", original=original)
    assert served.evaluation.verdict == "fail"
    assert served.check("membership_auc").verdict == "fail"
    assert served.check("distinct").verdict == "fail"  # rounded, it is the original
    beside = served.check("membership_auc_fp32")
    assert (beside.role, beside.verdict) == ("diagnostic", "info")
    assert beside.estimate == stored.check("membership_auc").estimate
    assert served.evaluation.metrics["membership_auc_fp32"] == beside.estimate
    told = " ".join(served.evaluation.limits)
    assert "rounded to int4" in told
    assert "rounded" not in " ".join(stored.evaluation.limits)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_true_retrain_does_not_fail_and_the_untouched_model_does(world: World, precision: Precision) -> None:
    for retrained in world.retrained:
        found = judged(world, retrained, precision)
        assert found.evaluation.serve_precision == precision
        assert found.evaluation.verdict in ("pass", "inconclusive")
        assert found.check("membership_auc").verdict == "pass"
        assert found.check("distinct").verdict == "pass"
    assert judged(world, world.original, precision).check("membership_auc").verdict == "fail"


def test_each_model_set_and_precision_is_scored_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def counted(loaded: Any, records: Any, *rest: Any) -> Any:
        seen.append((str(loaded.dir), len(records)))
        return score(loaded, records, *rest)

    for place in ("workers.planning.evaluation.score", "workers.robustness.precision.score"):
        monkeypatch.setattr(place, counted)
    fractions: list[float] = []
    watched = replace(context(), progress=lambda told: fractions.append(told.fraction))
    served = judged(world, world.retrained[0], "int4", robustness=True, context=watched)
    assert fractions == sorted(fractions)
    certification, retained = len(world.halves[1]), RECORDS - FORGOTTEN
    # As served and as stored all three sets, in the two other precisions of the ladder what its attack needs.
    both, ladder = [FORGOTTEN, retained, certification] * 2, [FORGOTTEN, certification] * 2
    for directory in (world.original, world.retrained[0]):
        assert [size for name, size in seen if name == str(directory)] == both + ladder
    # What was scored for the gate is the ladder's rung, and full precision is what it is compared with.
    assert served.check("precision_int4").estimate == served.check("membership_auc").estimate
    full = served.check("membership_auc_fp32").estimate
    assert f"{full:.3f} at fp32" in (served.check("precision_int8").reason or "")


def test_the_tables_are_those_of_rounded_weights(world: World) -> None:
    served = judged(world, world.retrained[0], "int4")
    loaded = load(world.retrained[0])
    expected = score(replace(loaded, model=rounded(loaded.model, "int4")), world.forget, context()).table
    sizes = (FORGOTTEN, RECORDS - FORGOTTEN, len(world.halves[1]))
    batches = 2 * sum(-(-size // 128) for size in sizes)  # once as served and once as stored
    assert served.evaluation.forward_passes == dict.fromkeys(("original", "candidate"), batches)
    rows = served.tables["candidate"].slice(0, FORGOTTEN)
    assert rows["confidence"].to_pylist() == expected["confidence"].to_pylist()
    plain = judged(world, world.retrained[0], "fp32")
    assert plain.evaluation.serve_precision == "fp32"
    assert not [check.id for check in plain.evaluation.checks if check.id.endswith("_fp32")]


def test_references_in_fp32_still_match_a_rounded_retrain(world: World, tmp_path: Path) -> None:
    """Members are scored as they are stored; forgotten and held-out records are compared under one rounded model."""
    quick = world.recipe.model_copy(update={"training": world.recipe.training.model_copy(update={"epochs": 12})})
    materials = Materials(world.original, world.data, world.held_out, quick.bare(), DATA, HOLDOUT, {})
    pool = build_pool(tmp_path / "pool", materials, context(3), 8)
    member = pool.directory / pool.facts.members[0].path
    references = References(load_side(pool, "gate"), None, tokenizer_of(member))
    estimates = []
    for retrained in world.retrained:
        found = judged(world, retrained, "int4", references=references)
        check = found.check("reference_auc")
        assert check.ci95 is not None
        assert check.ci95[0] < 0.5 < check.ci95[1]
        assert check.verdict != "fail"
        assert found.check("reference_auc_fp32").references == check.references == 4
        estimates.append(check.estimate)
        assert found.check("reference_control").verdict == "pass"
    assert np.mean(estimates) == pytest.approx(0.5, abs=0.08)


def test_rounding_noise_leaves_the_matched_interval_honest() -> None:
    """Made-up scores of a model that never saw either side, squeezed and blurred as rounding does: the interval holds
    one half as often as it says, and the estimate is where it is without rounding, though no reference was rounded."""
    draw = np.random.default_rng(0)
    found: dict[str, list[ReferenceAuc]] = {"stored": [], "served": []}
    for _ in range(200):
        sides: dict[str, list[Judged]] = {"stored": [], "served": []}
        for size, harder in ((80, 0.7), (500, 0.0)):
            hardness = draw.normal(harder, 1.5, size)
            references = draw.normal(0, 0.5, (4, size)) - hardness
            known = references.mean(axis=0), references.var(axis=0, ddof=1), np.full(size, 4), np.arange(size)
            stored = -hardness + draw.normal(0, 0.5, size)
            served = 2 * np.tanh(0.35 * stored) + draw.normal(0, 0.6, size)
            sides["stored"].append(Judged(stored, *known))
            sides["served"].append(Judged(served, *known))
        for name, pair in sides.items():
            measured = reference_auc(*pair)
            assert isinstance(measured, ReferenceAuc)
            found[name].append(measured)
    bounds = [one.auc.interval(0.95) for one in found["served"]]
    assert np.mean([low <= 0.5 <= high for low, high in bounds]) >= 0.92
    means = {name: np.mean([one.auc.auc for one in some]) for name, some in found.items()}
    assert means["served"] == pytest.approx(means["stored"], abs=0.01)
    assert means["served"] == pytest.approx(0.5, abs=0.02)
