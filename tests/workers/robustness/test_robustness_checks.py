"""An evaluation with robustness on real models: what it adds, what it leaves alone, what it says where it cannot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.verification.policy import Policy
from service.verification.schema import Check, Evaluation
from service.verification.verdict import disagreements
from tests.workers.factories import context
from tests.workers.robustness.conftest import FORGOTTEN, World
from workers.modeling.loading import save_model
from workers.modeling.records import held_out_key, split_held_out
from workers.modeling.rounding import rounded
from workers.planning.evaluation import evaluate
from workers.planning.problems import open_line
from workers.robustness.perturbed import STEPS
from workers.robustness.precision import precision_ladder

HOLDOUT = "e2" * 32


def judged(world: World, candidate: Path, **options: Any) -> Evaluation:
    original = options.pop("original", world.original)
    held_out = None if options.pop("alone", False) else world.held_out
    line = open_line(original, "image-classification", world.data, held_out, HOLDOUT if held_out else None)
    given: dict[str, Any] = {
        "line": line, "candidate_dir": candidate, "retrained_dirs": [], "policy": Policy(), "alpha": None,
        "forget_ids": world.forget.ids.tolist(), "ignore_record": True, "context": context(), "robustness": True,
    }  # fmt: skip
    found, _ = evaluate(**(given | options))
    assert disagreements(found, Policy().verification) == []
    return found


def check(found: Evaluation, name: str) -> Check:
    wanted = found.check(name)
    assert wanted is not None
    assert wanted.role == "diagnostic"
    assert wanted.verdict == "info"
    return wanted


def test_a_planted_edit_is_found_out_and_judged_as_without_the_probes(world: World, tmp_path: Path) -> None:
    """The original lies on the int4 grid; the edit hides the records within 0.4 steps of it."""
    original = world.load(world.original)
    original = replace(original, model=rounded(original.model, "int4"))
    save_model(original, tmp_path / "original")
    save_model(world.hidden(original, 0.4), tmp_path / "hidden")
    told: list[float] = []
    watched = replace(context(), progress=lambda progress: told.append(progress.fraction))
    options: dict[str, Any] = {"original": tmp_path / "original", "retrained_dirs": world.retrained}
    found = judged(world, tmp_path / "hidden", **options, context=watched)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)

    four, eight = check(found, "precision_int4"), check(found, "precision_int8")
    membership = found.check("membership_auc")
    assert membership is not None
    assert membership.estimate is not None
    assert four.estimate is not None
    assert four.ci95 is not None
    assert four.ci95[0] > 0.5
    assert four.estimate == found.metrics["precision_int4_do_nothing"] == found.metrics["membership_auc_do_nothing"]
    assert eight.estimate == pytest.approx(membership.estimate, abs=0.02)
    assert four.estimate > membership.estimate + 0.03
    assert (four.n, four.m) == (membership.n, membership.m)
    assert "fp32" in (four.reason or "")
    assert all(value < four.estimate for value in found.metrics["precision_int4_retrained"])

    relearned = check(found, "relearning_excess")
    assert (relearned.references, relearned.clusters) == (2, (8,))
    assert relearned.estimate == found.metrics["relearning_excess"] == found.metrics["relearning_excess_by_step"][2]
    assert found.metrics["relearning_steps"] == [0, 5, 20, 50]
    assert found.metrics["relearning_excess_by_step"][0] < relearned.estimate
    assert len(found.metrics["relearning_excess_retrained"]) == len(found.metrics["relearning_accuracy_retrained"]) == 2
    assert found.metrics["relearning_excess_do_nothing"] > max(found.metrics["relearning_excess_retrained"])

    plain = judged(world, tmp_path / "hidden", **options, robustness=False)
    assert (found.verdict, found.grade, found.reason) == (plain.verdict, plain.grade, plain.reason)
    assert found.checks[: len(plain.checks)] == plain.checks
    assert found.as_json()["schema"] == "lethe/evaluation/2"
    # Three precisions of 2 + 5 batches; four times 80 records of the other half, and 50 batches of the first; two
    # sets of changed records, and a generator of them that is trained beside the original.
    certification = split_held_out(world.held_out, held_out_key(HOLDOUT))[1]
    batches = 3 * (-(-FORGOTTEN // 128) + -(-len(certification) // 128))
    assert {name: found.forward_passes[name] - count for name, count in plain.forward_passes.items()} == dict.fromkeys(
        ("original", "candidate", "retrained-1", "retrained-2"), batches + 4 + 50 + 2 * -(-FORGOTTEN // 128)
    ) | {"original": batches + 4 + 50 + 2 * -(-FORGOTTEN // 128) + STEPS}
    for name in ("perturbed_forget_gap", "shifted_forget_gap"):
        assert check(found, name).estimate == found.metrics[name]
        assert len(found.metrics[f"{name}_retrained"]) == 2


def test_the_rungs_are_those_of_the_ladder_and_one_retrain_is_said_to_be_few(world: World) -> None:
    found = judged(world, world.retrained[0], retrained_dirs=world.retrained[1:2])
    certification = split_held_out(world.held_out, held_out_key(HOLDOUT))[1]
    loaded = world.load(world.retrained[0])
    (eight,) = precision_ladder(loaded, world.forget, certification, context(), ["int8"])
    assert check(found, "precision_int8").estimate == eight.auc.auc
    assert found.metrics["precision_int8_accuracy"] == eight.held_out_accuracy.estimate
    relearned = check(found, "relearning_excess")
    assert relearned.references == 1
    assert "one retrained model" in (relearned.reason or "")
    assert found.metrics["relearning_excess_retrained"] == [None]


def test_what_is_missing_is_said(world: World) -> None:
    found = judged(world, world.retrained[0], alone=True)
    for name in ("precision_bf16", "precision_int8", "precision_int4"):
        assert "no held-out records" in (check(found, name).reason or "")
    relearned = check(found, "relearning_excess")
    assert (relearned.estimate, relearned.reason) == (
        None,
        "not run: no retrained model to compare with: give --retrained",
    )
    assert not [name for name in found.metrics if name.startswith(("precision", "relearning"))]
    few = judged(
        world, world.retrained[0], retrained_dirs=world.retrained[1:2], forget_ids=world.forget.ids[:30].tolist()
    )
    assert "3 people" in (check(few, "relearning_excess").reason or "")
    assert few.metrics["precision_int4"] is not None
