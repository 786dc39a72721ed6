"""A model that knows what it learned: late people are forgotten by replay, and the reserve is answered honestly."""

import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from service.catalogue.lineage import CANARY_PREFIX, LINEAGE
from tests.e2e.world import RECIPE, World, checked, here, write_digits
from workers.lineage.reserve import RESERVE, read_reserve
from workers.lineage.store import ModelHistory
from workers.modeling.training_record import read_record

pytestmark = pytest.mark.e2e

WORKERS = 1

NAME = "remembering"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remembering")
    return write_digits(folder, people=175, rows=10)[0]


@pytest.fixture(scope="module")
def remembering(world: World, data: Path) -> World:
    """One epoch, no held-out set: a reserve is set aside, canaries are planted, checkpoints lie within the epoch."""
    folder = data.parent
    (folder / "recipe.toml").write_text(RECIPE.replace("epochs = 30", "epochs = 1"))
    (folder / "policy.toml").write_text('[batch]\nwindow = "1s"\n')
    here("train", "--recipe", str(folder / "recipe.toml"), "--data", str(data), "--out", str(folder / "model"))
    options = ["--path", str(folder / "model"), "--task", "image-classification", "--data", str(data)]
    here("models", "register", NAME, *options, "--policy", str(folder / "policy.toml"))
    return world


def serving_directory(world: World) -> Path:
    (row,) = world.sql("select v.path from versions v join models m on m.serving_version_id = v.id")
    return Path(row[0])


def people_by_first_step(data: Path, history: ModelHistory) -> list[str]:
    """Those whose first record was met latest come first."""
    table = parquet.read_table(data, columns=["record_id", "subject_id"]).to_pydict()
    owner = dict(zip(table["record_id"], table["subject_id"], strict=True))
    first = history.log.first_steps(len(history.records.ids))
    earliest: dict[str, int] = {}
    for name, step in zip(history.records.ids.tolist(), first.tolist(), strict=True):
        if not name.startswith(CANARY_PREFIX):
            earliest[owner[name]] = min(step, earliest.get(owner[name], step))
    return sorted(earliest, key=lambda person: -earliest[person])


def records_of(data: Path, person: str) -> set[str]:
    table = parquet.read_table(data, columns=["record_id", "subject_id"]).to_pydict()
    return {name for name, owner in zip(table["record_id"], table["subject_id"], strict=True) if owner == person}


def test_late_people_are_forgotten_by_replay_one_after_another(remembering: World, data: Path) -> None:
    world = remembering
    gone: set[str] = set()
    for person in people_by_first_step(data, ModelHistory(serving_directory(world)))[:2]:
        base = ModelHistory(serving_directory(world))
        done = world.wait(world.post(person, model=NAME)["id"])
        target = done["targets"][0]
        assert (target["verdict"], target["grade"]) == ("pass", "A")
        report = world.get(f"/v1/deletion-requests/{done['id']}/report.json")["targets"][0]
        assert [attempt["method"] for attempt in report["attempts"]] == ["replay"]
        estimates = {entry["method"]: entry["share"] for entry in report["plan"]["estimates"]}
        assert estimates["replay"] < 0.9 < estimates["retrain"]
        assert report["plots"] == [] or all(plot["title"] for plot in report["plots"])
        gone |= records_of(data, person)
        directory = serving_directory(world)
        record, history = read_record(directory), ModelHistory(directory)
        assert record is not None
        assert record.unlearning is not None
        assert record.unlearning.method == "replay"
        assert not set(history.records.ids.tolist()) & gone
        assert history.steps == base.steps
        assert record.steps == round(estimates["replay"] * base.steps)
        assert sum(name.startswith(CANARY_PREFIX) for name in history.records.ids) == 73


def test_the_lineage_of_a_retired_version_ends_with_it(remembering: World) -> None:
    rows = remembering.sql(
        "select a.path, a.destroy_by, v.destroy_by from artefacts a join versions v on a.path = v.path || '/lineage'"
        " where a.kind = 'lineage' order by v.number"
    )
    assert len(rows) == 3
    assert all(artefact == version for _, artefact, version in rows)
    assert [end is None for _, end, _ in rows] == [False, False, True]


def test_a_person_of_the_reserve_is_answered_and_leaves_it(remembering: World, data: Path) -> None:
    world = remembering
    reserve = read_reserve(serving_directory(world) / LINEAGE)
    table = parquet.read_table(data, columns=["record_id", "subject_id"]).to_pydict()
    owners = {owner for name, owner in zip(table["record_id"], table["subject_id"], strict=True) if name in reserve}
    person = sorted(owners)[0]
    before = len(world.versions(NAME))
    done = world.wait(world.post(person, model=NAME)["id"])
    assert done["targets"][0]["outcome"] == "no_records"
    assert len(world.versions(NAME)) == before
    tombstones = {row[0] for row in world.sql("select record_id from tombstones")}
    assert records_of(data, person) <= tombstones
    # Nothing was published; the serving version's list has lost them all the same.
    shortened = serving_directory(world) / LINEAGE / RESERVE
    assert read_reserve(shortened.parent) == reserve - tombstones
    assert records_of(data, person) <= reserve
    assert shortened.stat().st_mode & 0o777 == 0o600
    again = world.wait(world.post(person, model=NAME)["id"])
    assert again["targets"][0]["outcome"] == "already_deleted"
    # The next version's reserve is drawn without them, and no order log ever names them.
    other = people_by_first_step(data, ModelHistory(serving_directory(world)))[0]
    done = world.wait(world.post(other, model=NAME)["id"])
    report = world.get(f"/v1/deletion-requests/{done['id']}/report.json")["targets"][0]
    assert [attempt["method"] for attempt in report["attempts"]] == ["replay"]
    directory = serving_directory(world)
    assert not read_reserve(directory / LINEAGE) & tombstones
    assert not np.isin(ModelHistory(directory).records.ids, sorted(tombstones)).any()


def test_data_without_the_deleted_serves_the_next_deletion(remembering: World, data: Path) -> None:
    """The model was trained on the old files, and its log is still repeated exactly on the records that stay."""
    world, out = remembering, data.parent / "compacted.parquet"
    world.poll(lambda: all(job["status"] == "completed" for job in world.get("/v1/jobs")["items"]), 30, "the last job")
    gone = {row[0] for row in world.sql("select record_id from tombstones")}
    told = json.loads(checked("datasets", "compact", NAME, "--out", str(out), "--json", home=world.home))
    assert (told["removed"], told["dataset"]["records"]) == (len(gone), 1750 - len(gone))
    assert {"old data", "lineage", "subject-index"} <= {entry["what"] for entry in told["to_destroy"]}
    data.rename(data.with_name("elsewhere"))  # nothing reads it any more
    person = people_by_first_step(out, ModelHistory(serving_directory(world)))[0]
    theirs = records_of(out, person)
    done = world.wait(world.post(person, model=NAME)["id"])
    assert done["targets"][0]["verdict"] == "pass"
    report = world.get(f"/v1/deletion-requests/{done['id']}/report.json")["targets"][0]
    assert [attempt["method"] for attempt in report["attempts"]] == ["replay"]
    lineage = report["lineage"]["dataset"]
    assert lineage["digest_before"] == told["dataset"]["digest"]
    assert (lineage["records_before"], lineage["records_after"]) == (1750 - len(gone), 1750 - len(gone | theirs))
    assert not np.isin(ModelHistory(serving_directory(world)).records.ids, sorted(gone | theirs)).any()
    # Nothing is left that would tell the service whose the deleted records were.
    table = parquet.read_table(data.with_name("elsewhere"), columns=["record_id", "subject_id"]).to_pydict()
    owner = dict(zip(table["record_id"], table["subject_id"], strict=True))
    again = world.wait(world.post(owner[min(gone)], model=NAME)["id"])
    assert again["targets"][0]["outcome"] == "no_records"
