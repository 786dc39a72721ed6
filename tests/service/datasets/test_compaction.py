"""`lethe datasets compact`: the registered data without the deleted, or nothing changed at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from service.audit.models import AuditEvent
from service.audit.service import events_of
from service.cli.main import main
from service.database import reading, transaction
from service.datasets.index import find_records
from service.datasets.models import Dataset
from service.datasets.places import drafted
from service.datasets.records import open_records
from service.datasets.sources import dataset_digest
from service.errors import BadDataset, BadParameters, Conflict
from service.jobs.compaction import compact
from service.references.service import Wanted, prepare
from service.registry import pools
from service.registry import service as registry
from service.registry.models import Artefact
from tests.dying import die_before_commit
from tests.service.datasets.support import OF_S1, RECIPE, add_job, dataset_row, forget, model_row, row_count, run_json
from tests.service.factories import (
    image_model,
    image_rows,
    language_model,
    register_images,
    text_rows,
    write_jsonl,
    write_parquet,
)


def test_the_copy_is_registered_in_place_of_the_data(forgotten: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, out = dataset_row(), forgotten.parent / "new" / "digits.parquet"
    (listed,) = run_json(capsys, "datasets", "list")["items"]
    assert (listed["records"], listed["tombstones"], listed["deleted_records"]) == (24, 4, 4)
    told = run_json(capsys, "datasets", "compact", "digits", "--out", str(out))
    assert (told["removed"], told["holdout_removed"], told["tombstones"]) == (4, 0, 4)
    new = dataset_row()
    assert (new.id, new.path, new.records, new.subjects) == (told["dataset"]["id"], str(out), 20, 5)
    assert new.digest == told["dataset"]["digest"] == dataset_digest(out)
    assert (old.columns, old.identifiers) == (new.columns, new.identifiers)
    before, after = pq.read_table(forgotten / "digits.parquet"), pq.read_table(out)
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.to_pylist() == [row for row in before.to_pylist() if row["subject_id"] != "s1"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["digits.parquet"]
    (listed,) = run_json(capsys, "datasets", "list")["items"]
    assert (listed["path"], listed["records"], listed["tombstones"], listed["deleted_records"]) == (str(out), 20, 4, 0)
    for person, count in (("s1", 0), ("s2", 4)):
        assert len(find_records(new, [{"type": "subject_id", "value": person}])) == count
        mail = {"type": "email", "value": f"person{person[1]}@example.org"}
        assert len(find_records(new, [mail])) == count
    with reading() as session:
        (logged,) = events_of(session, [new.id])
    assert (logged["kind"], logged["actor"]) == ("dataset.compacted", "local")
    assert (logged["data"]["before"], logged["data"]["after"]) == (old.digest, new.digest)
    assert (logged["data"]["records"], logged["data"]["removed"], logged["data"]["tombstones"]) == (20, 4, 4)
    assert "r0004" not in json.dumps(logged)


def _lines(folder: Path, kind: str) -> Path:
    rows = text_rows()
    if kind == "csv":
        path = folder / "chat.csv"
        quoted = [f'{row["record_id"]},{row["subject_id"]},"said: ""{row["text"]}"",\nand more"' for row in rows]
        path.write_text("\n".join(["record_id,subject_id,text", *quoted, ""]))
        return path
    if kind == "jsonl":
        return write_jsonl(folder / "chat.jsonl", rows)
    for part in range(3):
        write_jsonl(folder / "parts" / f"{part}.jsonl", rows[part * 4 : part * 4 + 4])
    return folder / "parts"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "folder"])
def test_every_format_stays_what_it_is(database_url: str, tmp_path: Path, kind: str) -> None:
    (tmp_path / "parts").mkdir()
    data = _lines(tmp_path, kind)
    registry.register_model("chat", language_model(tmp_path / "model"), "causal-lm", data)
    forget(["t3", "t4", "t5"], "chat")
    out = tmp_path / f"out{data.suffix}"
    done = compact("chat", out)
    assert (done.removed, done.after.records) == (3, 9)
    before, after = open_records(data, "causal-lm"), open_records(out, "causal-lm")
    assert after.ids.tolist() == [name for name in before.ids.tolist() if name not in ("t3", "t4", "t5")]
    assert after.take(range(9)) == before.without(["t3", "t4", "t5"]).take(range(9))
    assert out.is_dir() == data.is_dir()
    with pytest.raises(Conflict, match="nothing to compact, it holds none of the deleted records"):
        compact("chat", tmp_path / f"again{data.suffix}")


def _change(path: Path) -> None:
    write_parquet(path, image_rows(labels=2))


def _nothing(_: Path) -> None:
    """The data stays as it is."""


def _open_job(status: str) -> Callable[[Path], None]:
    def add(_: Path) -> None:
        model = model_row()
        with transaction() as session:
            add_job(session, model, status)

    return add


@pytest.mark.parametrize(
    ("spoil", "name", "out", "code", "said"),
    [
        (_nothing, "nobody", "out.parquet", 1, "there is no model 'nobody'"),
        (_open_job("queued"), "digits", "out.parquet", 1, "of 'digits' is queued; compact the data when it has ended"),
        (_open_job("running"), "digits", "out.parquet", 1, "of 'digits' is running; compact the data when"),
        (_nothing, "digits", "data/digits.parquet", 2, "digits.parquet exists already; give a place that does not"),
        (_nothing, "digits", "data", 2, "data exists already"),
        (_nothing, "digits", "out.csv", 2, "out.csv: the data is parquet; name a .parquet file, or a folder"),
        (_change, "digits", "out.parquet", 2, "digits.parquet: changed after registration; register the model again"),
        (Path.unlink, "digits", "out.parquet", 2, "digits.parquet: no such file or folder"),
    ],
)
def test_what_is_refused_leaves_everything_as_it_was(
    forgotten: Path,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    name: str,
    out: str,
    code: int,
    said: str,
) -> None:
    spoil(forgotten / "digits.parquet")
    files, rows, row = _files(forgotten.parent), row_count(AuditEvent), model_row().dataset_id
    assert main(["datasets", "compact", name, "--out", str(forgotten.parent / out)]) == code
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert (_files(forgotten.parent), row_count(AuditEvent), model_row().dataset_id) == (files, rows, row)


def _files(folder: Path) -> set[Path]:
    """Whatever lies there, but for the database's own files."""
    return {path for path in folder.rglob("*") if not path.name.startswith("lethe.db")}


def test_there_may_be_nothing_to_compact(database_url: str, tmp_path: Path) -> None:
    register_images(tmp_path)
    with pytest.raises(Conflict, match="nothing to compact: 'digits' was not made to forget anything"):
        compact("digits", tmp_path / "out.parquet")
    forget([f"r{number:04}" for number in range(24)])
    with pytest.raises(Conflict, match="nothing would be left of it; retire the model instead"):
        compact("digits", tmp_path / "out.parquet")


def test_a_copy_inside_of_registered_data_would_change_that(database_url: str, tmp_path: Path) -> None:
    rows = image_rows()
    for part in (0, 1):
        chosen = {name: values[part * 12 : part * 12 + 12] for name, values in rows.items()}
        write_parquet(tmp_path / "parts" / f"{part}.parquet", chosen)
        write_parquet(tmp_path / "other" / f"{part}.parquet", chosen)
    register_images(tmp_path, data=tmp_path / "parts")
    register_images(tmp_path, "others", data=tmp_path / "other")
    forget(OF_S1)
    for inside in ("parts/new", "other/new", "parts/deep/er"):
        with pytest.raises(BadParameters, match="lies in the registered data"):
            compact("digits", tmp_path / inside)
    with pytest.raises(BadParameters, match="the data is a folder of parts; name a folder"):
        compact("digits", tmp_path / "new.parquet")
    assert compact("digits", tmp_path / "new").after.details["files"] == 2


def _touch() -> None:
    os.utime(dataset_row().path, (1, 1))


def _forget_more() -> None:
    forget(["r0000"])


def _begin_job() -> None:
    _open_job("queued")(Path())


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (_touch, "changed while it was copied; nothing was changed"),
        (_forget_more, "has forgotten further records, by now; try again"),
        (_begin_job, "is queued; compact the data when it has ended"),
    ],
)
def test_what_happens_meanwhile_is_noticed(forgotten: Path, happens: Callable[[], None], said: str) -> None:
    files, row = _files(forgotten.parent), model_row().dataset_id
    seen: list[int] = []

    def watch(records: int) -> None:
        seen.append(records)
        if len(seen) == 2:  # the data was surveyed, and now it has been written
            happens()

    with pytest.raises((BadDataset, Conflict), match=said):
        compact("digits", forgotten.parent / "out.parquet", watch=watch)
    assert seen == [24, 24]
    assert model_row().dataset_id == row
    assert _files(forgotten.parent) == files


DYING = """
from service.datasets import places
from service.jobs.compaction import compact
{prepare}
compact("digits", Path(sys.argv[2]))
"""


def test_a_run_that_dies_before_its_commit_has_registered_nothing(forgotten: Path) -> None:
    """The copy may lie in its place, whole; the model goes on with the old data."""
    out, row = forgotten.parent / "out.parquet", model_row().dataset_id
    die_before_commit(1, DYING.format(prepare=""), str(out))
    assert (model_row().dataset_id, row_count(Dataset)) == (row, 1)
    assert len(open_records(out, "image-classification")) == 20
    with pytest.raises(BadParameters, match="exists already"):
        compact("digits", out)
    out.unlink()
    assert compact("digits", out).after.records == 20


def test_a_run_that_dies_while_it_writes_leaves_nothing_in_the_place(forgotten: Path) -> None:
    """What it left beside it is overwritten by the next."""
    out = forgotten.parent / "out.parquet"
    die_before_commit(9, DYING.format(prepare="places.like = lambda *_: os._exit(9)"), str(out))
    assert [path.name for path in forgotten.parent.glob("*out*")] == [".out.draft.parquet"]
    assert compact("digits", out).after.records == 20
    assert list(forgotten.parent.glob(".out*")) == []


def test_a_commit_whose_answer_was_lost_keeps_the_copy(forgotten: Path) -> None:
    def lose(_session: Session) -> None:
        raise ConnectionError("the answer was lost")

    event.listen(Session, "after_commit", lose)
    try:
        with pytest.raises(ConnectionError):
            compact("digits", forgotten.parent / "out.parquet")
    finally:
        event.remove(Session, "after_commit", lose)
    assert dataset_row().path == str(forgotten.parent / "out.parquet")
    assert dataset_digest(Path(dataset_row().path)) == dataset_row().digest
    assert Path(dataset_row().index_path).is_file()


def test_two_at_once_do_not_write_the_same_copy(forgotten: Path) -> None:
    out = forgotten.parent / "out.parquet"
    with drafted(out, folder=False), pytest.raises(Conflict, match="another process writes the same copy"):
        compact("digits", out)
    assert compact("digits", out).removed == 4


def _with_holdout(folder: Path, rows: dict[str, list[Any]]) -> Path:
    holdout = write_parquet(folder / "holdout.parquet", rows)
    register_images(folder, holdout=holdout)
    return holdout


def test_a_held_out_set_that_holds_them_is_rewritten_too(database_url: str, tmp_path: Path) -> None:
    holdout = _with_holdout(tmp_path, image_rows(subjects=2) | {"subject_id": ["s7"] * 8})
    forget(OF_S1)
    with pytest.raises(BadParameters, match="the held-out set holds 4 deleted records too; name --holdout-out"):
        compact("digits", tmp_path / "out.parquet")
    same = tmp_path / "out.parquet"
    with pytest.raises(BadParameters, match="named for both"):
        compact("digits", same, same)
    done = compact("digits", tmp_path / "out.parquet", tmp_path / "kept.parquet", exclusive=True)
    assert (done.removed, done.holdout_removed) == (4, 4)
    assert (done.after.holdout_path, done.after.holdout_records) == (str(tmp_path / "kept.parquet"), 4)
    assert done.after.holdout_digest == dataset_digest(tmp_path / "kept.parquet") != dataset_digest(holdout)


def test_a_held_out_set_without_them_stays(database_url: str, tmp_path: Path) -> None:
    """It may have labels that no record of the data has any more."""
    rows = image_rows(subjects=2) | {"record_id": [f"h{n}" for n in range(8)], "label": [2] * 8}
    holdout = _with_holdout(tmp_path, rows)
    forget([f"r{number:04}" for number in range(24) if number % 3 == 2])
    with pytest.raises(BadParameters, match="--holdout-out: the held-out set holds none"):
        compact("digits", tmp_path / "out.parquet", tmp_path / "kept.parquet")
    done = compact("digits", tmp_path / "out.parquet")
    assert (done.after.holdout_path, done.after.holdout_digest) == (str(holdout), dataset_digest(holdout))
    assert done.after.details == {"files": 1, "num_labels": 3, "compacted_from": done.before.id}
    assert pq.read_table(tmp_path / "out.parquet").column("label").to_pylist().count(2) == 0


def test_the_line_keeps_a_label_that_only_its_held_out_set_still_has(database_url: str, tmp_path: Path) -> None:
    """Registered again, with the compacted data: the model's config.json says which labels there are."""
    rows = image_rows(subjects=2) | {"record_id": [f"h{n}" for n in range(8)], "label": [2] * 8}
    holdout = _with_holdout(tmp_path, rows)
    forget([f"r{number:04}" for number in range(24) if number % 3 == 2])
    data = Path(compact("digits", tmp_path / "out.parquet").after.path)
    with pytest.raises(BadDataset, match="holds label 2, but the model has 2 labels"):
        register_images(tmp_path, "another", data=data, holdout=holdout)  # nothing has taught it a third one
    with pytest.raises(BadDataset, match="holds label 2, but the model has 2 labels"):
        register_images(tmp_path, path=image_model(tmp_path / "small", labels=2), data=data, holdout=holdout)
    beyond = write_parquet(tmp_path / "beyond.parquet", rows | {"label": [3] * 8})
    with pytest.raises(BadDataset, match="holds label 3, but the model has 3 labels"):
        register_images(tmp_path, data=data, holdout=beyond)
    version = register_images(tmp_path, path=image_model(tmp_path / "new", fill=1), data=data, holdout=holdout)
    assert version.number == 2
    assert dataset_row().details["num_labels"] == 3
    assert register_images(tmp_path, path=tmp_path / "new", data=data, holdout=holdout).number == 2


def test_a_reference_pool_follows_its_data(forgotten: Path) -> None:
    """It goes on to be the pool of what it was planned with; only the place of its records is another one."""
    pool_id = prepare("digits", Wanted(count=8))
    done = compact("digits", forgotten.parent / "out.parquet")
    with reading() as session:
        pool = pools.live_pool(session, done.model.id)
    assert pool is not None
    assert (pool.id, pool.state) == (pool_id, "planning")
    assert (pool.dataset_id, pool.dataset_digest) == (done.after.id, done.before.digest)


def test_a_pool_that_scored_other_held_out_records_ends(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    holdout = write_parquet(tmp_path / "holdout.parquet", image_rows(subjects=2) | {"subject_id": ["s7"] * 8})
    register_images(tmp_path, holdout=holdout, recipe=tmp_path / "recipe.toml")
    prepare("digits", Wanted(count=8))
    forget(OF_S1)
    compact("digits", tmp_path / "out.parquet", tmp_path / "kept.parquet")
    with reading() as session:
        assert pools.live_pool(session, model_row().id) is None
        dates = list(session.scalars(select(Artefact.destroy_by).where(Artefact.kind == pools.FOLDER)))
    assert None not in dates


def test_registration_goes_on_to_know_what_was_deleted(forgotten: Path) -> None:
    """The copy covers a model trained without them; the old data, and a model trained on them, are still refused."""
    out = forgotten.parent / "out.parquet"
    compact("digits", out)
    model = image_model(forgotten / "next", fill=1)
    everybody = image_rows()["record_id"]
    exposures = {"record_id": [name for name in everybody if name not in OF_S1], "exposures": [1] * 20}
    write_parquet(model / "training_records.parquet", exposures)
    version = register_images(forgotten, path=model, data=out)
    assert (version.number, dataset_row().path, row_count(Dataset)) == (2, str(out), 2)
    with pytest.raises(BadDataset, match="holds 4 records that 'digits' was made to forget"):
        register_images(forgotten, path=image_model(forgotten / "old", fill=2), data=forgotten / "digits.parquet")
