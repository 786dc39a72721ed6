"""Methods that aim at references: they reach planted targets, leave those at their targets alone, and stay bounded."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from service.catalogue.families.references import (
    DatamodelMatchingParams,
    NablaTauRefParams,
    OracleMatchingParams,
    RumParams,
)
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line, measure
from workers.lineage.recorder import TrainingRecorder
from workers.lineage.store import ModelHistory
from workers.methods.datamodel_matching import datamodel_matching, predicted
from workers.methods.nabla_tau_ref import nabla_tau_ref
from workers.methods.oracle_matching import oracle_matching
from workers.methods.rum import difficulty, rum
from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.problem import MemberScores, Problem
from workers.modeling.records import MemoryRecords, joined
from workers.modeling.reference_targets import all_scores, corrected, reference_targets
from workers.modeling.train import Provenance, train_by_recipe
from workers.references.tables import SideTable

FORGET = 60


@dataclasses.dataclass
class Known(SideTable):
    """A table whose members are given."""

    given: MemberScores | None = None

    def members(self) -> MemberScores:
        assert self.given is not None
        return self.given


@pytest.fixture(scope="module")
def recorded_digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Line, list[int]]:
    """A line whose training recorded its learning events, and the rows that were labelled wrong."""
    data, held_out = factories.digits(300, 150)
    order = np.random.default_rng(0).permutation(1797)[:450]
    wrong = np.flatnonzero(load_digits().target[order][:300] != np.array(data.columns["label"])).tolist()
    recipe = factories.resnet_recipe(epochs=12, batch_size=32, learning_rate=3e-3)
    out = tmp_path_factory.mktemp("recorded") / "model"
    context = dataclasses.replace(factories.context(), recorder=TrainingRecorder)
    train_by_recipe(recipe, data, out, 0, context, Provenance("00" * 32))
    return Line(out, recipe, data, held_out), wrong


def side(problem: Problem, wanted: np.ndarray, members: MemberScores | None = None) -> Known:
    """References that say `wanted` of the forgotten records, and of selection records what the served model says."""
    edit = Edit(problem, NablaTauRefParams(), factories.context())
    assert problem.selection is not None
    unseen = all_scores(edit, edit.selection)  # type: ignore[arg-type]
    kept = all_scores(edit, edit.retain)
    mean = np.concatenate([wanted, kept, unseen])
    names = [*problem.forget.ids.tolist(), *problem.retain.ids.tolist(), *edit.selection.records.ids.tolist()]  # type: ignore[union-attr]
    seen = len(wanted) + len(kept)
    columns = {
        "record_id": names,
        "set": ["train"] * seen + ["held_out"] * len(unseen),
        "out_mean": mean,
        "out_var": np.ones(len(mean)),
        "out_count": np.full(len(mean), 8),
        "in_correct": np.ones(len(mean)),
        "out_correct": 1 / (1 + np.exp(-mean)),
    }
    return Known(pa.table(columns), None, given=members)


def reached(problem: Problem, directory: Path) -> np.ndarray:
    edit = Edit(dataclasses.replace(problem, base_dir=directory), NablaTauRefParams(), factories.context())
    return all_scores(edit, edit.forget)


def test_records_come_to_their_own_targets_from_both_sides(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(FORGET)
    now = reached(problem, digits_line.base)
    wanted = now.mean() + np.where(np.arange(FORGET) % 2, 2.0, -2.0)
    posed = dataclasses.replace(problem, references=side(problem, wanted))
    params = NablaTauRefParams(weight=1.0, min_steps=150, most_passes=60)
    outcome = nabla_tau_ref(posed, params, factories.context(1), tmp_path)
    after = reached(problem, tmp_path)
    before, left = (np.abs(found - wanted).mean() for found in (now, after))
    assert left < 0.5 * before
    assert not outcome.exact
    assert outcome.steps <= 60 * 2


def test_records_at_their_targets_are_left_alone(digits_line: Line, tmp_path: Path) -> None:
    """Null: the references say what the served model says; the first pass ends the run."""
    problem = digits_line.problem(FORGET)
    now = reached(problem, digits_line.base)
    posed = dataclasses.replace(problem, references=side(problem, now))
    outcome = nabla_tau_ref(posed, NablaTauRefParams(tolerance=2.0), factories.context(1), tmp_path)
    assert outcome.steps < 20
    assert "nothing was left to do" in outcome.notes[0]
    assert measure(digits_line, tmp_path, problem).retain < 1.2 * measure(digits_line, digits_line.base, problem).retain


def test_a_target_out_of_reach_cannot_throw_the_model_out(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(10)
    posed = dataclasses.replace(problem, references=side(problem, np.full(10, -500.0)))
    nabla_tau_ref(posed, NablaTauRefParams(anchor="outputs"), factories.context(1), tmp_path)
    before, after = measure(digits_line, digits_line.base, problem), measure(digits_line, tmp_path, problem)
    assert after.unseen < 2 * before.unseen


def test_a_pool_for_other_records_is_refused_before_any_step(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(10)
    other = side(dataclasses.replace(problem, forget=digits_line.certification.subset(range(10))), np.zeros(10))
    with pytest.raises(BadParameters, match="other records"):
        nabla_tau_ref(
            dataclasses.replace(problem, references=other), NablaTauRefParams(), factories.context(), tmp_path
        )
    with pytest.raises(BadParameters, match="pool of 16"):
        nabla_tau_ref(problem, NablaTauRefParams(), factories.context(), tmp_path)


def test_canaries_that_no_pool_knows_are_brought_to_unseen_records_of_their_rank(digits_line: Line) -> None:
    problem = digits_line.problem(40)
    people = dataclasses.replace(problem, forget=problem.forget.subset(range(30)))
    known = side(people, np.full(30, 1.5))
    posed = dataclasses.replace(problem, references=known, companions=frozenset(problem.forget.ids[30:].tolist()))
    edit = Edit(posed, NablaTauRefParams(), factories.context())
    found = reference_targets(edit)
    unseen = all_scores(edit, edit.selection)  # type: ignore[arg-type]
    assert np.ptp(found.scores[:30]) == pytest.approx(0.0)
    assert np.sort(found.scores[30:]) == pytest.approx(np.quantile(unseen, (np.arange(10) + 0.5) / 10))
    with pytest.raises(BadParameters, match="other records"):
        reference_targets(
            Edit(dataclasses.replace(posed, companions=frozenset()), NablaTauRefParams(), factories.context())
        )


def test_the_correction_is_monotone_and_goes_on_beyond_what_was_seen() -> None:
    draw = np.random.default_rng(0)
    references = draw.normal(0, 2, 600)
    served = 1.5 * references + 1 + draw.normal(0, 0.3, 600)
    at = np.array([-12.0, -2.0, 0.0, 2.0, 12.0])
    assert corrected(references, served, at) == pytest.approx(1.5 * at + 1, abs=0.8)
    few = corrected(references[:10], served[:10], at)
    assert few == pytest.approx(np.polyval(np.polyfit(references[:10], served[:10], 1), at))
    # References that know nothing of difficulty give a shift and no more.
    flat = corrected(np.linspace(0, 1, 10), np.linspace(1, 0, 10), np.array([0.0, 1.0]))
    assert np.diff(flat)[0] == pytest.approx(1.0)


def test_oracle_matching_comes_near_to_the_oracle(digits_line: Line, tmp_path: Path) -> None:
    """The oracle is the served model after two epochs of fine-tuning: another model, that can be reached."""
    from service.catalogue.families.baselines import FinetuneParams
    from workers.methods.finetune import finetune

    problem = digits_line.problem(FORGET)
    for name in ("oracle", "out"):
        (tmp_path / name).mkdir()
    finetune(problem, FinetuneParams(epochs=2.0), factories.context(3), tmp_path / "oracle")
    posed = dataclasses.replace(problem, oracle=tmp_path / "oracle")
    oracle_matching(posed, OracleMatchingParams(passes=30), factories.context(1), tmp_path / "out")
    aim, now, after = (reached(problem, place) for place in (tmp_path / "oracle", digits_line.base, tmp_path / "out"))
    assert np.abs(after - aim).mean() < 0.6 * np.abs(now - aim).mean()
    with pytest.raises(BadParameters, match="never has"):
        oracle_matching(problem, OracleMatchingParams(), factories.context(), tmp_path / "out")


def test_datamodels_take_away_what_a_record_owes_to_itself(digits_line: Line, tmp_path: Path) -> None:
    """References whose score of a record is 3 higher where they saw it: the method takes 3 off, and no more."""
    problem = digits_line.problem(FORGET)
    now = reached(problem, digits_line.base)
    plain = side(problem, now)
    draw = np.random.default_rng(0)
    rows = plain.table.num_rows
    seen = FORGET + len(problem.retain)
    trained = np.zeros((16, rows), dtype=bool)
    trained[:, :seen] = np.argsort(draw.random((16, seen)), axis=1) < seen // 2
    scores = plain.column("out_mean") + 3.0 * trained + draw.normal(0, 0.2, (16, rows))
    posed = dataclasses.replace(problem, references=side(problem, now, MemberScores(trained, scores)))
    params = DatamodelMatchingParams(spread=1.0, retained=256, passes=30)
    datamodel_matching(posed, params, factories.context(1), tmp_path)
    fallen = now - reached(problem, tmp_path)
    assert fallen.mean() == pytest.approx(3.0, abs=1.0)
    assert measure(digits_line, tmp_path, problem).retain < 2 * measure(digits_line, digits_line.base, problem).retain


def with_companions(problem: Problem, line: Line, deleted: int = 12, staying: int = 300) -> Problem:
    """As an edit poses it on a model with canaries: some deleted along, more of them that stay, none in any pool."""
    made = [f"lethe-canary-{at:06d}" for at in range(deleted + staying)]
    rows = [at % len(line.held_out) for at in range(len(made))]
    fields = {name: [values[row] for row in rows] for name, values in line.held_out.columns.items()}
    canaries = MemoryRecords(line.train.task, made, made, fields)
    return dataclasses.replace(
        problem,
        forget=joined(problem.forget, canaries.subset(range(deleted))),
        retain=joined(problem.retain, canaries.subset(range(deleted, len(made)))),
        companions=frozenset(made[:deleted]),
        planted=frozenset(made[deleted:]),
    )


@pytest.mark.parametrize("blind", [False, True])
def test_datamodels_leave_canaries_out_of_the_pool_and_aim_them_by_rank(
    digits_line: Line, tmp_path: Path, blind: bool
) -> None:
    """A pool knows people's records alone; canaries come to what unseen records say, rank by rank."""
    problem = digits_line.problem(20)
    now = reached(problem, digits_line.base)
    plain = side(problem, now)
    draw = np.random.default_rng(0)
    seen = 20 + len(problem.retain)
    trained = np.zeros((16, plain.table.num_rows), dtype=bool)
    trained[:, :seen] = np.argsort(draw.random((16, seen)), axis=1) < seen // 2
    scores = plain.column("out_mean") + 3.0 * trained
    references = side(problem, now, MemberScores(trained, scores))
    posed = dataclasses.replace(with_companions(problem, digits_line), references=references)
    if blind:
        posed = dataclasses.replace(posed, selection=None)
    params = DatamodelMatchingParams(spread=1.0, retained=128)
    edit = Edit(posed, params, factories.context())
    known = np.flatnonzero(posed.of_people(posed.retain))[:128]
    anchors = Encoded(edit.task, posed.retain.subset(known.tolist()))
    wanted, kept = predicted(edit, anchors, params)
    assert now - wanted[:20] == pytest.approx(np.full(20, 3.0), abs=1.0)
    unseen = all_scores(edit, edit.selection) if edit.selection is not None else wanted[:20]
    assert np.sort(wanted[20:]) == pytest.approx(np.quantile(unseen, (np.arange(12) + 0.5) / 12))
    assert len(kept) == 128
    outcome = datamodel_matching(posed, DatamodelMatchingParams(passes=1), factories.context(), tmp_path)
    assert outcome.steps >= 1


def test_rum_puts_canaries_in_the_middle_and_makes_no_strata_for_them(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(FORGET)
    wanted = np.linspace(-4, 4, FORGET)
    posed = dataclasses.replace(with_companions(problem, digits_line, 13), references=side(problem, wanted))
    hard = difficulty(posed, RumParams(), factories.context())
    # References without a record get it right with chance 1 / (1 + e^-wanted), those with it always.
    assert hard[:FORGET] == pytest.approx(1 - 1 / (1 + np.exp(-wanted)))
    assert hard[FORGET:] == pytest.approx(np.full(13, np.median(hard[:FORGET])))
    few = dataclasses.replace(with_companions(digits_line.problem(5), digits_line, 40), references=posed.references)
    outcome = rum(few, RumParams(high="negative_gradient_plus"), factories.context(), tmp_path)
    assert outcome.notes[0] == "by memorization: 45 high by negative_gradient_plus"


def test_targets_of_canaries_alone_need_no_person(digits_line: Line) -> None:
    """A stratum may hold nothing else."""
    problem = digits_line.problem(5)
    posed = dataclasses.replace(with_companions(problem, digits_line), references=side(problem, np.zeros(5)))
    posed = dataclasses.replace(posed, forget=posed.forget.subset(range(5, 17)))
    edit = Edit(posed, NablaTauRefParams(), factories.context())
    assert edit.selection is not None
    expected = np.quantile(all_scores(edit, edit.selection), (np.arange(12) + 0.5) / 12)
    assert np.sort(reference_targets(edit).scores) == pytest.approx(expected)


def test_datamodels_by_the_head_need_no_pool(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(10)
    with pytest.raises(BadParameters, match="newton"):
        datamodel_matching(problem, DatamodelMatchingParams(), factories.context(), tmp_path)
    params = DatamodelMatchingParams(source="newton", retained=128, passes=5)
    outcome = datamodel_matching(problem, params, factories.context(), tmp_path)
    assert outcome.steps == 5
    assert np.isfinite(reached(problem, tmp_path)).all()


def test_rum_orders_mislabelled_records_last(tmp_path: Path, recorded_digits: tuple[Line, list[int]]) -> None:
    """Mislabelled records are learnt by heart: by the training's confidence they are the hardest."""
    line, wrong = recorded_digits
    problem = dataclasses.replace(line.problem(FORGET), lineage=ModelHistory(line.base))
    hard = difficulty(problem, RumParams(refine_by="confidence"), factories.context())
    mine = np.array([row for row in wrong if row < FORGET])
    others = np.setdiff1d(np.arange(FORGET), mine)
    assert np.median(hard[mine]) > np.median(hard[others])
    assert np.mean(hard[mine][:, None] > hard[others][None, :]) > 0.85
    far = difficulty(problem, RumParams(refine_by="entanglement"), factories.context())
    assert np.isfinite(far).all()


def test_rum_treats_each_part_with_its_method_and_none_twice(
    tmp_path: Path, recorded_digits: tuple[Line, list[int]]
) -> None:
    line, _ = recorded_digits
    problem = dataclasses.replace(line.problem(FORGET), lineage=ModelHistory(line.base))
    before = measure(line, line.base, problem)
    outcome = rum(problem, RumParams(), factories.context(2), tmp_path)
    after = measure(line, tmp_path, problem)
    parts = "20 low by repair, 20 middle by negative_gradient_plus, 20 high by nabla_tau"
    assert outcome.notes[0] == f"by memorization: {parts}"
    assert after.forget > before.forget
    assert after.retain < after.forget
    assert after.unseen < 1.5 * before.unseen
    assert sorted(tmp_path.parent.glob("rum-*")) == []
    for method in ("rum", "retrain"):
        with pytest.raises(BadParameters, match="cannot use"):
            rum(problem, RumParams(high=method), factories.context(), tmp_path)
    with pytest.raises(BadParameters, match="reference models"):
        rum(line.problem(FORGET), RumParams(), factories.context(), tmp_path)
