"""What an evaluation says of a model's history and of copies that stay, on real models with planted and null cases."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.verification.policy import Policy
from service.verification.schema import Evaluation, Traces
from service.verification.verdict import disagreements
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from workers.lineage.prepare import prepare
from workers.modeling.fresh import Provenance
from workers.modeling.train import train_by_recipe
from workers.planning.attempt import run_attempt
from workers.planning.evaluation import evaluate
from workers.planning.problems import Line, build_problem, open_line
from workers.planning.traces import retained_copies, traces_of

KEY = b"k" * 32
DATA, HOLDOUT = "d1" * 32, "e2" * 32


def train(folder: Path, recipe: Recipe, data: MemoryRecords, has_held_out: bool) -> None:
    """As `lethe train` does it: with reserve, canaries and log where the recipe says so."""
    prepared = prepare(recipe, data, has_held_out, KEY)
    context = replace(factories.context(), recorder=prepared.recorder)
    train_by_recipe(recipe, prepared.records, folder, 0, context, Provenance(DATA, HOLDOUT if has_held_out else None))


@dataclass(frozen=True)
class Case:
    """A model, its data, a held-out set or None, and what is to be forgotten."""

    folder: Path
    data: MemoryRecords
    held_out: MemoryRecords | None
    recipe: Recipe
    forget: list[str]

    def line(self, folder: Path | None = None) -> Line:
        digest = HOLDOUT if self.held_out is not None else None
        return open_line(folder or self.folder, self.data.task, self.data, self.held_out, digest)

    def unlearn(self, method: str, params: dict[str, Any], out: Path) -> Path:
        problem = build_problem(self.line(), self.forget, self.recipe, DATA, {})
        run_attempt(method, params, problem, factories.context(3), out)
        return out

    def evaluate(self, candidate: Path, folder: Path | None = None, **options: Any) -> Evaluation:
        given = {"policy": Policy(), "alpha": None, "ignore_record": False, "context": factories.context()} | options
        line = self.line(folder)
        found, _ = evaluate(line=line, candidate_dir=candidate, retrained_dirs=[], forget_ids=self.forget, **given)
        assert disagreements(found, Policy().verification) == []
        return found


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Enough digits for canaries and a reserve; three of the forgotten images have exact copies of other people."""
    data, _ = factories.digits(1700, 90)
    images, labels = data.columns["image"], data.columns["label"]
    for row in (0, 1, 2):
        images[500 + row], labels[500 + row] = images[row], labels[row]
    images[3], labels[3] = images[4], labels[4]  # both are forgotten: no copy stays
    images[600], labels[600] = images[5], (labels[5] + 1) % 10  # the same picture under another label
    recipe = factories.resnet_recipe(epochs=2, batch_size=64, learning_rate=3e-3)
    folder = tmp_path_factory.mktemp("planted") / "model"
    train(folder, recipe, data, has_held_out=False)
    return Case(folder, data, None, recipe, open_line(folder, data.task, data, None, None).people.ids[:10].tolist())


@pytest.fixture(scope="module")
def edited(planted: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("edited") / "out"
    return planted.unlearn("nabla_tau", {"passes": 1, "min_steps": 1}, out)


@pytest.fixture(scope="module")
def replayed(planted: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.unlearn("replay", {}, tmp_path_factory.mktemp("replayed") / "out")


def test_a_whole_history_is_told_with_counts(planted: Case, replayed: Path) -> None:
    found = planted.evaluate(replayed)
    traces = found.traces
    assert traces is not None
    assert traces == Traces(
        record=True, log="kept", canaries=73, reserved=traces.reserved, held_out="reserve", carried_on=True
    )
    assert 30 < traces.reserved < 80
    assert (found.basis, found.grade) == ("procedure", "A")
    told = " ".join(found.limits)
    assert "None of the 73 companion canaries" in told
    assert "grade" not in told
    for absent in ("trained elsewhere", "was not logged", "destroyed", "supplied", "does not carry"):
        assert absent not in told


def test_copies_of_other_people_are_counted_and_those_forgotten_along_are_not(planted: Case, replayed: Path) -> None:
    assert set(planted.forget) >= {"d00000", "d00001", "d00002", "d00003", "d00004", "d00005"}
    found = planted.evaluate(replayed)
    assert found.records.near_duplicates == 3
    assert any(line.startswith("3 retained records are exact copies of forgotten ones") for line in found.limits)
    names = planted.data.ids.tolist()
    assert not [name for name in names if name in found.model_dump_json()]


def test_without_copies_the_count_is_zero_and_without_a_table_there_is_none(planted: Case, tmp_path: Path) -> None:
    line = planted.line()
    assert retained_copies(line, line.people.ids[20:40].tolist()) == 0
    bare = Path(shutil.copytree(planted.folder, tmp_path / "bare"))
    (bare / LINEAGE / "duplicates.parquet").unlink()
    assert retained_copies(planted.line(bare), planted.forget) is None
    (bare / LINEAGE / "duplicates.parquet").write_bytes(b"not a table")
    assert retained_copies(planted.line(bare), planted.forget) is None


def test_a_copy_that_an_earlier_job_has_tombstoned_does_not_stay(planted: Case) -> None:
    kept = [at for at, name in enumerate(planted.data.ids) if name != "d00501"]
    later = replace(planted, data=planted.data.subset(kept))
    assert retained_copies(later.line(), planted.forget) == 2


def test_a_history_that_was_lost_is_told_apart_from_none(planted: Case, replayed: Path, tmp_path: Path) -> None:
    whole = traces_of(planted.line(), replayed)
    for name, damage in (
        ("destroyed", lambda folder: shutil.rmtree(folder / LINEAGE)),
        ("changed", lambda folder: (folder / LINEAGE / "lineage.json").write_text("{}")),
        ("shortened", lambda folder: (folder / LINEAGE / "order.parquet").unlink()),
    ):
        copy = Path(shutil.copytree(planted.folder, tmp_path / name))
        damage(copy)
        found = traces_of(planted.line(copy), replayed)
        assert (found.record, found.log, found.carried_on) == (True, "lost", None)
        assert whole.log == "kept"
    gone = tmp_path / "destroyed"
    told = planted.evaluate(replayed, gone, ignore_record=True)
    assert told.traces is not None
    assert (told.traces.canaries, told.traces.canaries_lost, told.traces.held_out) == (73, True, "none")
    assert any("list of the 73 companion canaries" in line for line in told.limits)
    assert any("destroyed or damaged since" in line for line in told.limits)
    (gone / "training_record.json").unlink()
    assert traces_of(planted.line(gone), replayed).record is False
    assert traces_of(planted.line(gone), replayed).log == "none"


def test_a_candidate_that_does_not_carry_the_log_on_is_told(planted: Case, edited: Path, tmp_path: Path) -> None:
    assert traces_of(planted.line(), edited).carried_on is True
    bare = Path(shutil.copytree(edited, tmp_path / "bare"))
    (bare / "training_record.json").unlink()
    found = planted.evaluate(bare)
    assert found.traces is not None
    assert found.traces.carried_on is False
    assert any("does not carry the log" in line for line in found.limits)


def test_a_model_trained_elsewhere_and_near_copies_of_texts(tmp_path: Path) -> None:
    data, held_out = factories.conversations(30, 30)
    prompts, completions = data.columns["prompt"], data.columns["completion"]
    long = " He asked twice, was promised a call within two days, and has been waiting for it for a whole week now."
    completions[4] += long
    prompts[104], completions[104] = prompts[4], completions[4].replace("twice", "thrice")  # somebody else says it too
    recipe = factories.gpt2_recipe(epochs=1, batch_size=16)
    train(tmp_path / "model", recipe, data, has_held_out=True)
    case = Case(tmp_path / "model", data, held_out, recipe, data.ids[:10].tolist())
    case.unlearn("retrain", {}, tmp_path / "out")
    found = case.evaluate(tmp_path / "out")
    assert found.records.near_duplicates == 1
    assert any(line.startswith("1 retained record is an exact or near copy") for line in found.limits)
    assert found.traces == Traces(record=True, log="kept", held_out="given", carried_on=True)
    assert any("trained without companion canaries" in line for line in found.limits)
    other = replace(case, forget=data.ids[50:60].tolist())
    assert retained_copies(other.line(), other.forget) == 0
    foreign = Path(shutil.copytree(tmp_path / "model", tmp_path / "foreign"))
    shutil.rmtree(foreign / LINEAGE)
    (foreign / "training_record.json").unlink()
    told = case.evaluate(tmp_path / "out", foreign, data_digest=DATA, recipe=recipe)
    assert told.traces == Traces(record=False, held_out="given")
    assert told.records.near_duplicates is None
    assert (told.basis, told.grade) == ("procedure", "A")  # what the original lacks takes nothing from a fresh retrain
    for said in ("trained elsewhere", "was not logged", "supplied", "were not searched for"):
        assert any(said in line for line in told.limits)
