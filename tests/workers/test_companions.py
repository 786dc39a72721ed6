"""Canaries deleted along with people: from the forget set to the gate, with a planted leak and a null."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.catalogue.lineage import LINEAGE
from service.verification.policy import Policy
from service.verification.schema import Evaluation
from tests.workers import factories
from tests.workers.test_traces import DATA, HOLDOUT, Case, train
from workers.lineage.canaries import read_canaries, write_canaries
from workers.lineage.store import ModelHistory, sealed_canaries
from workers.modeling.directories import sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model, save_model
from workers.modeling.train import train_by_recipe
from workers.modeling.training_record import read_exposures, read_record
from workers.planning.attempt import run_attempt
from workers.planning.evaluation import evaluate
from workers.planning.problems import as_edit, build_problem

COMPANIONS = 73


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Enough digits for 73 canaries, trained long enough to know them."""
    data, held_out = factories.digits(1500, 290, noise=0.0)
    recipe = factories.resnet_recipe(epochs=8, batch_size=64, learning_rate=3e-3)
    folder = tmp_path_factory.mktemp("companions") / "model"
    train(folder, recipe, data, has_held_out=True)
    return Case(folder, data, held_out, recipe, [str(name) for name in data.ids[:40]])


@pytest.fixture(scope="module")
def edited(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model after an approximate edit."""
    out = tmp_path_factory.mktemp("edited") / "model"
    problem = as_edit(build_problem(case.line(), case.forget, case.recipe, DATA, {}), case.line(), COMPANIONS)
    assert (len(problem.forget), len(problem.people)) == (40 + COMPANIONS, 40)
    assert not set(problem.retain.ids.tolist()) & problem.companions
    run_attempt("negative_gradient_plus", {}, problem, factories.context(3), out)
    return out


def claiming(edited: Path, folder: Path, make: Callable[[Path], None]) -> Path:
    """A candidate that says it deleted what the edited one did, with other weights."""
    shutil.copytree(edited, folder)
    make(folder)
    return folder


def outcome(found: Evaluation, name: str) -> tuple[str, str]:
    check = found.check(name)
    assert check is not None
    return check.role, check.verdict


def test_an_edit_spends_them_and_a_training_takes_them_back(case: Case, edited: Path, tmp_path: Path) -> None:
    before, after = read_canaries(case.folder / LINEAGE), read_canaries(edited / LINEAGE)
    assert before is not None
    assert after is not None
    assert int(after.spent.sum()) == COMPANIONS == len(before.inside)
    spent = set(after.records.ids[after.spent].tolist())
    assert not spent & set(read_exposures(edited)["record_id"].to_pylist())
    record = read_record(edited)
    assert record is not None
    assert record.unlearning is not None
    assert (record.unlearning.forget_records, record.unlearning.companions, record.edited_records) == (40, 73, 40)
    # Nothing is left to delete along: the next edit goes without, and never meets the spent ones.
    again = build_problem(case.line(edited), case.forget[:5], case.recipe, DATA, {}, COMPANIONS)
    assert not again.companions
    assert not spent & set(again.retain.ids.tolist())
    # They stay in the log, and an exact method takes them in again: their step is nobody's first exposure.
    assert spent <= set(ModelHistory(edited).records.ids.tolist())
    exact = build_problem(case.line(edited), case.forget, case.recipe, DATA, {})
    assert spent <= set(exact.retain.ids.tolist())
    assert exact.planted == spent
    assert int(exact.of_people(exact.retain).sum()) == len(exact.retain) - COMPANIONS
    run_attempt("retrain", {}, exact, factories.context(4), tmp_path / "retrained")
    anew = read_canaries(tmp_path / "retrained" / LINEAGE)
    assert anew is not None
    assert not anew.spent.any()
    assert spent <= set(read_exposures(tmp_path / "retrained")["record_id"].to_pylist())


def test_replay_after_an_edit_is_replay_of_the_original(case: Case, edited: Path, tmp_path: Path) -> None:
    digests = []
    for number, base in enumerate((case.folder, edited)):
        out = tmp_path / str(number)
        problem = build_problem(case.line(base), case.forget, case.recipe, DATA, {})
        run_attempt("replay", {}, problem, factories.context(5), out)
        digests.append(sha256_file(out / "model.safetensors"))
    assert digests[0] == digests[1]


def test_a_model_that_still_holds_them_fails(case: Case, edited: Path, tmp_path: Path) -> None:
    """The original's weights, one of them nudged: everything it claims to have deleted is still there."""
    import torch

    def nudged(folder: Path) -> None:
        loaded = load_model(case.folder, "image-classification", torch.device("cpu"))
        next(loaded.model.parameters()).data.view(-1)[0] += 1e-4
        save_model(loaded, folder)

    found = case.evaluate(claiming(edited, tmp_path / "nudged", nudged), ignore_record=True)
    assert outcome(found, "companion_canaries") == ("gate", "fail")
    assert outcome(found, "companion_rate") in {("gate", "fail"), ("gate", "inconclusive")}
    assert found.verdict == "fail"
    control, check = found.check("canary_control"), found.check("companion_canaries")
    assert control is not None
    assert check is not None
    assert control.verdict == "pass"
    assert check.estimate == pytest.approx(control.estimate, abs=0.01)


def test_score_tables_say_the_kind_of_each_canary_and_none_of_people(case: Case, edited: Path) -> None:
    line = case.line()
    _, tables = evaluate(
        line=line, candidate_dir=edited, retrained_dirs=[], forget_ids=case.forget, policy=Policy(), alpha=None,
        ignore_record=True, context=factories.context(),
    )  # fmt: skip
    assert line.canaries is not None
    known = dict(zip(line.canaries.records.ids.tolist(), line.canaries.kinds.tolist(), strict=True))
    for table in tables.values():
        columns = (table[name].to_pylist() for name in ("record_id", "set", "kind"))
        for name, part, kind in zip(*columns, strict=True):
            assert kind == (known[name] if "canary" in part else None)


def test_a_model_that_never_saw_them_is_never_failed(case: Case, edited: Path, tmp_path: Path) -> None:
    """Three trainings on the people alone; the margin of 0.10 is wide enough for 73 canaries most of the time."""
    estimates = []
    for seed in range(3):

        def clean(folder: Path, seed: int = seed) -> None:
            made, people = tmp_path / f"made-{seed}", case.data.subset(range(40, len(case.data)))
            train_by_recipe(case.recipe, people, made, seed, factories.context(seed), Provenance(DATA, HOLDOUT))
            shutil.copyfile(made / "model.safetensors", folder / "model.safetensors")

        found = case.evaluate(claiming(edited, tmp_path / str(seed), clean), ignore_record=True)
        for name in ("companion_canaries", "companion_rate"):
            assert outcome(found, name)[0] == "gate"
            assert outcome(found, name)[1] != "fail"
        check = found.check("companion_canaries")
        assert check is not None
        assert (check.n, check.m, check.margin) == (73, 365, 0.10)
        estimates.append(check.estimate)
    assert np.mean(estimates) == pytest.approx(0.5, abs=3 * 0.037 / np.sqrt(3))


def test_canaries_of_another_make_are_not_believed(case: Case, edited: Path, tmp_path: Path) -> None:
    """Without those that the original's record committed to there is no check, and the sentence says none was made."""

    def swapped(folder: Path) -> None:
        (folder / LINEAGE / "canaries.parquet").unlink()

    found = case.evaluate(claiming(edited, tmp_path / "swapped", swapped), ignore_record=True)
    check = found.check("companion_canaries")
    assert check is not None
    assert (check.role, check.estimate) == ("diagnostic", None)
    assert any("none of the 73 companion canaries" in sentence.lower() for sentence in found.limits)


def test_a_model_whose_canaries_changed_kind_has_none(case: Case, tmp_path: Path) -> None:
    """Who calls the easy ones hard chooses afterwards what is compared with what."""
    other = Path(shutil.copytree(case.folder, tmp_path / "other"))
    canaries = read_canaries(other / LINEAGE)
    assert canaries is not None
    assert sealed_canaries(other) is not None
    write_canaries(replace(canaries, kinds=np.roll(canaries.kinds, 1)), other / LINEAGE)
    assert sealed_canaries(other) is None
    assert case.line(other).canaries is None


def test_the_policy_says_how_many_and_none_is_none(case: Case) -> None:
    none = build_problem(case.line(), case.forget, case.recipe, DATA, {}, 0)
    assert (len(none.forget), none.companions) == (40, frozenset())
    more = build_problem(case.line(), case.forget, case.recipe, DATA, {}, 74)
    assert more.companions == frozenset()
    assert Policy().verification.companions == COMPANIONS
