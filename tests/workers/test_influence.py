"""Influence updates against an exact refit of a convex head: deleted, corrected, bounded."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from service.catalogue.families.influence import InfluenceParams
from service.errors import BadDataset, BadParameters
from tests.workers import factories
from tests.workers.conftest import Line, measure
from tests.workers.convex_heads import head_weights, refitted, solved
from tests.workers.factories import MemoryRecords
from workers.methods.influence import influence
from workers.modeling.editing import Edit
from workers.modeling.heads import head_data
from workers.modeling.problem import Problem
from workers.modeling.records import Records, joined
from workers.planning.attempt import run_attempt

L2 = 3e-2


@pytest.fixture(scope="module")
def convex(digits_line: Line, tmp_path_factory: pytest.TempPathFactory) -> Line:
    return refitted(digits_line, tmp_path_factory.mktemp("convex") / "model", digits_line.train, L2)


def exact(line: Line, problem: Problem, records: Records, l2: float) -> torch.Tensor:
    edit = Edit(dataclasses.replace(problem, retain=records), InfluenceParams(), factories.context())
    return solved(*head_data(edit, edit.retain), l2)


def test_one_newton_step_is_nearly_an_exact_refit(convex: Line, tmp_path: Path) -> None:
    """L2 counts once for the sum of losses, so that its share grows as records leave."""
    problem = convex.problem(10)
    grown = L2 * 900 / 890
    truth, before = exact(convex, problem, problem.retain, grown), head_weights(convex.base, problem)
    params = InfluenceParams(damping=grown, bound="none", sample=900)
    outcome = influence(problem, params, factories.context(), tmp_path)
    after = head_weights(tmp_path, problem)
    assert float((after - truth).norm()) < 0.25 * float((before - truth).norm())
    assert "Hessian-vector products" in outcome.notes[0]
    first = tmp_path / "first"
    first.mkdir()
    influence(problem, InfluenceParams(order="first", bound="none", scale=5.0), factories.context(), first)
    nearer = float((head_weights(first, problem) - truth).norm())
    assert 0.25 * float((before - truth).norm()) < nearer < float((before - truth).norm())


def test_corrected_labels_come_near_to_training_on_them(convex: Line, tmp_path: Path) -> None:
    """GDPR Article 16: wrong labels are rectified; the exact refit is on the corrected data."""
    rightly = factories.digits(900, 397, noise=0.0)[0].columns["label"]
    wrong = [at for at, label in enumerate(convex.train.columns["label"]) if label != rightly[at]][:8]
    others = [at for at in range(900) if at not in wrong]
    forget = convex.train.subset(wrong)
    columns = forget.columns | {"label": [rightly[at] for at in wrong]}
    right = MemoryRecords(forget.task, forget.ids, forget.subjects, columns)
    problem = dataclasses.replace(convex.problem(1), forget=forget, retain=convex.train.subset(others))
    truth = exact(convex, problem, joined(problem.retain, right), L2)
    before = head_weights(convex.base, problem)
    corrected = dataclasses.replace(problem, replacements=right)
    outcome = influence(corrected, InfluenceParams(damping=L2, bound="none"), factories.context(), tmp_path)
    after = head_weights(tmp_path, problem)
    assert float((after - truth).norm()) < 0.5 * float((before - truth).norm())
    assert "8 of 8 records were corrected, not deleted" in outcome.notes


def test_a_corrected_feature_changes_what_the_model_says_of_it(convex: Line, tmp_path: Path) -> None:
    problem = convex.problem(20)
    flipped = problem.forget.take(range(20)) | {"image": problem.retain.take(range(20))["image"]}
    right = MemoryRecords(problem.forget.task, problem.forget.ids, problem.forget.subjects, flipped)
    corrected = dataclasses.replace(problem, replacements=right)
    before = measure(convex, convex.base, dataclasses.replace(problem, forget=right))
    influence(corrected, InfluenceParams(damping=L2), factories.context(), tmp_path)
    after = measure(convex, tmp_path, dataclasses.replace(problem, forget=right))
    assert after.forget < before.forget
    assert after.unseen < 1.05 * before.unseen


def test_a_replacement_of_somebody_else_is_refused(convex: Line, tmp_path: Path) -> None:
    problem = convex.problem(10)
    stray = dataclasses.replace(problem, replacements=problem.retain.subset([0]))
    with pytest.raises(BadDataset, match="1 of 1 replacements"):
        influence(stray, InfluenceParams(), factories.context(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("forget", [10, 270])
@pytest.mark.parametrize("layers", ["head", "all"])
def test_a_move_stays_within_its_bound(digits_line: Line, tmp_path: Path, forget: int, layers: str) -> None:
    """A deep network far from a convex minimum, with a first order of a length that would destroy it."""
    problem = digits_line.problem(forget)
    before = measure(digits_line, digits_line.base, problem)
    params = InfluenceParams(layers=layers, order="first", scale=5000.0)  # type: ignore[arg-type]
    outcome = influence(problem, params, factories.context(), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert after.unseen < 1.1 * before.unseen
    assert after.retain < before.retain + 0.5
    assert after.forget < after.unseen + 0.5
    assert any("where its bound lies" in note for note in outcome.notes)


def test_unseen_records_are_left_nearly_alone(convex: Line, tmp_path: Path) -> None:
    problem = convex.problem(60)
    null = dataclasses.replace(problem, forget=convex.certification.subset(range(60)))
    before = measure(convex, convex.base, null)
    influence(null, InfluenceParams(damping=L2), factories.context(), tmp_path)
    after = measure(convex, tmp_path, null)
    assert after.forget < before.forget + 0.15
    assert after.unseen < before.unseen + 0.1


def test_only_methods_that_correct_take_replacements(convex: Line, tmp_path: Path) -> None:
    problem = dataclasses.replace(convex.problem(10), replacements=convex.train.subset(range(10)))
    with pytest.raises(BadParameters, match="finetune deletes records"):
        run_attempt("finetune", {}, problem, factories.context(), tmp_path / "out")
    result = run_attempt("influence", {}, problem, factories.context(), tmp_path / "out")
    assert "10 of 10 records were corrected, not deleted" in result.notes


def test_the_command_line_corrects_by_influence_alone(
    convex: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from service.cli.main import main

    for name, rows in (("data", range(200)), ("fixed", range(3))):
        columns = convex.train.take(rows)
        ids, people = (
            [str(value) for value in part[: len(rows)]] for part in (convex.train.ids, convex.train.subjects)
        )
        table = pa.table({"record_id": ids, "subject_id": people, "image": columns["image"], "label": columns["label"]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    (tmp_path / "forget.txt").write_text("d00000\nd00001\nd00002\n")
    words = ["unlearn", "--model", str(convex.base), "--task", "image-classification", "--out", str(tmp_path / "out")]
    words += ["--data", str(tmp_path / "data.parquet"), "--forget", str(tmp_path / "forget.txt")]
    words += ["--replace", str(tmp_path / "fixed.parquet"), "--device", "cpu"]
    assert main([*words, "--method", "finetune"]) == 2
    assert "--replace: finetune deletes records" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--method", "influence", "--json"]) == 0
    assert "3 of 3 records were corrected, not deleted" in capsys.readouterr().out
