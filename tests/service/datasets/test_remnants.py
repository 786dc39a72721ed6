"""What still holds the deleted after a compaction: listed with who and when, or destroyed where that was asked for."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.audit.service import events_of
from service.cli.main import main
from service.database import clock, reading, transaction
from service.datasets.models import Dataset
from service.datasets.records import open_records
from service.datasets.sources import dataset_digest
from service.errors import BadParameters, Conflict
from service.jobs.compaction import compact
from service.references.service import Wanted, prepare
from service.registry import repository
from service.registry import service as registry
from service.registry.models import ReferenceMember
from tests.service.datasets.support import OF_S1, dataset_row, forget, model_row, run_json
from tests.service.factories import (
    image_rows,
    png,
    register_images,
    write_parquet,
)


def test_what_must_be_destroyed_is_listed_with_who_and_when(
    forgotten: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old data, an earlier registration of it elsewhere, the retired version with its lineage, the old index."""
    old, first = dataset_row(), model_row()
    index = Path(old.index_path).parent
    moved = forgotten.parent / "moved" / "digits.parquet"
    moved.parent.mkdir()
    shutil.copyfile(old.path, moved)
    with transaction() as session:  # registered before tombstones were checked
        session.get_one(Dataset, old.id).path = str(moved)
    with transaction() as session:
        version = registry.get_version(session, first, 1)
        end = clock(session) + timedelta(days=7)
        repository.retire(session, version.id, clock(session), end)
        lineage = Path(version.path) / "lineage"
        registry.track_artefact(session, model_id=first.id, job_id=None, kind="lineage", path=lineage, destroy_by=end)
    told = run_json(capsys, "datasets", "compact", "digits", "--out", str(forgotten.parent / "out.parquet"))
    found = {entry["what"]: entry for entry in told["to_destroy"]}
    assert set(found) == {"old data", "version 1", "lineage", "subject-index"}
    assert (found["old data"]["path"], found["old data"]["by"], found["old data"]["destroy_by"]) == (
        str(moved),
        "owner",
        None,
    )
    assert found["version 1"]["by"] == found["lineage"]["by"] == "service"
    assert found["version 1"]["destroy_by"] == found["lineage"]["destroy_by"] > found["subject-index"]["destroy_by"]
    assert found["subject-index"]["path"] == str(index)
    with reading() as session:
        now = clock(session)
    assert registry.sweep_destroyed(now) == 1
    assert not index.exists()
    assert Path(dataset_row().index_path).is_file()


def test_earlier_data_is_listed_while_it_holds_the_deleted(forgotten: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = forgotten.parent / "first.parquet"
    told = run_json(capsys, "datasets", "compact", "digits", "--out", str(first))
    assert [entry["path"] for entry in told["to_destroy"] if entry["by"] == "owner"] == [
        str(forgotten / "digits.parquet")
    ]
    forget(["r0000"])
    out = forgotten.parent / "second.parquet"
    told = run_json(capsys, "datasets", "compact", "digits", "--out", str(out), "--destroy-source")
    assert told["destroyed"] == [str(first)]
    assert not first.exists()
    assert {entry["what"]: entry["path"] for entry in told["to_destroy"] if entry["by"] == "owner"} == {
        "earlier data": str(forgotten / "digits.parquet")
    }


def test_what_is_printed_for_people(forgotten: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = forgotten.parent / "out.parquet"
    assert main(["datasets", "compact", "digits", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"digits: 20 records in {out}, digest {dataset_row().digest}" in told
    assert "left out: 4 deleted records, 0 of the held-out set" in told
    assert "4 tombstones (record ids alone)" in told
    rows = [line.split() for line in told.splitlines() if "owner" in line or "service" in line.split()[1:2]]
    assert [row[:2] for row in rows] == [["old", "data"], ["subject-index", "service"]]
    assert "not known to the service" in told
    assert main(["datasets", "list"]) == 0
    assert str(out) in capsys.readouterr().out


def _beside(folder: Path) -> Path:
    """A table whose images are files, four of each person in a folder of their own."""
    rows = image_rows()
    names = [
        f"pictures/{person}/{record}.png" for person, record in zip(rows["subject_id"], rows["record_id"], strict=True)
    ]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))
    return write_parquet(folder / "digits.parquet", rows | {"image": names})


def test_source_is_destroyed_when_asked_for(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the images of the deleted, and nothing else; a link is followed to what it stands for."""
    folder, real = tmp_path / "data", tmp_path / "elsewhere" / "digits.parquet"
    data = _beside(folder)
    real.parent.mkdir()
    data.rename(real)
    data.symlink_to(real)
    register_images(folder, data=data)
    forget(OF_S1)
    with pytest.raises(BadParameters, match=r"the data names image files in .*; name a file there"):
        compact("digits", tmp_path / "out.parquet")
    told = run_json(capsys, "datasets", "compact", "digits", "--out", str(folder / "new.parquet"), "--destroy-source")
    assert set(told["destroyed"]) == {str(data), *(str(folder / f"pictures/s1/{name}.png") for name in OF_S1)}
    assert not real.exists()
    assert not data.is_symlink()
    assert [entry for entry in told["to_destroy"] if entry["by"] == "owner"] == []
    table = open_records(folder / "new.parquet", "image-classification")
    assert table.take([0, 4])["image"] == [png(0), png(8)]
    with reading() as session:
        events = [row["data"] for row in events_of(session, [told["before"]["id"]])]
    assert events == [{"model": model_row().id, "digest": told["before"]["digest"], "files": 5}]


def test_a_folder_is_destroyed_with_what_becomes_empty(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    _beside(folder)
    (folder / "README.md").write_text("ours")
    register_images(tmp_path, data=folder)
    forget(OF_S1)
    told = run_json(capsys, "datasets", "compact", "digits", "--out", str(tmp_path / "new"), "--destroy-source")
    assert len(told["destroyed"]) == 5
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "pictures"]
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["s0", "s2", "s3", "s4", "s5"]
    assert len(list((tmp_path / "new").rglob("*.png"))) == 20
    assert [entry["path"] for entry in told["to_destroy"] if entry["by"] == "owner"] == []


def test_without_being_asked_images_of_the_deleted_are_listed(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    register_images(folder, data=_beside(folder))
    forget(OF_S1)
    told = run_json(capsys, "datasets", "compact", "digits", "--out", str(tmp_path / "new"))
    assert (tmp_path / "new" / "digits.parquet").is_file()
    owned = {entry["path"]: entry["what"] for entry in told["to_destroy"] if entry["by"] == "owner"}
    images = {str(folder / f"pictures/s1/{name}.png"): "image of deleted" for name in OF_S1}
    assert owned == {str(folder / "digits.parquet"): "old data"} | images


def test_source_that_others_need_is_not_destroyed(forgotten: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = forgotten / "digits.parquet"
    register_images(forgotten, "others", data=data)
    with pytest.raises(Conflict, match=r"digits\.parquet: is data of 'others' too"):
        compact("digits", forgotten.parent / "out.parquet", exclusive=True)
    told = run_json(capsys, "datasets", "compact", "digits", "--out", str(forgotten.parent / "out.parquet"))
    (entry,) = [entry for entry in told["to_destroy"] if entry["by"] == "owner"]
    assert (entry["path"], entry["note"]) == (str(data), "also data of others")
    assert dataset_digest(data) == dataset_row("others").digest


def test_source_is_not_destroyed_under_references_that_are_trained(forgotten: Path) -> None:
    pool_id = prepare("digits", Wanted(count=8))
    with transaction() as session:
        member = ReferenceMember(id="rmb_1", pool_id=pool_id, number=0, pair=0, side="gate", half=0, state="running")
        session.add(member)
    with pytest.raises(Conflict, match="references of 'digits' are being made from the data"):
        compact("digits", forgotten.parent / "out.parquet", exclusive=True)
    assert compact("digits", forgotten.parent / "out.parquet").removed == 4


def test_what_could_not_be_deleted_is_told(
    forgotten: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    out = forgotten.parent / "new"  # a folder: what it is drafted in is removed without `unlink`
    assert main(["datasets", "compact", "digits", "--out", str(out), "--destroy-source", "--json"]) == 1
    told = capsys.readouterr()
    assert "some of the old data could not be deleted" in told.err
    assert json.loads(told.out)["destroyed"] == []
    assert json.loads(told.out)["to_destroy"][0]["what"] == "old data"
    assert dataset_row().path == str(out)
