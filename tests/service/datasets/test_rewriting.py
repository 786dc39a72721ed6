"""A copy without some records: what stays is the same in every value, and nothing of the rest is left in its bytes."""

import csv
import io
import json
import resource
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.datasets import rewriting
from service.datasets.records import open_records
from service.datasets.rewriting import rewrite
from service.datasets.sources import dataset_digest, open_source
from service.datasets.survey import Survey, survey
from service.errors import BadDataset, DiskFull
from tests.service.factories import png, text_rows, write_jsonl, write_parquet

COLUMNS = {"record_id": "record_id", "subject_id": "subject_id", "text": "text"}
IMAGES = {"record_id": "record_id", "subject_id": "subject_id", "image": "image", "label": "label"}


def _rewrite(path: Path, draft: Path, gone: list[str], columns: dict[str, str] | None = None) -> Survey:
    found = survey(open_source(path), columns or COLUMNS, gone)
    if path.is_dir():
        draft.mkdir()
    rewrite(found, draft)
    return found


def _rich(count: int = 60) -> pa.Table:
    """Every kind of column that a training set may bring along, with names that only some rows hold."""
    people = [f"subject-{number:03}" for number in range(count)]
    categories = pa.dictionary(pa.int16(), pa.string())
    nested = pa.list_(pa.struct([("who", categories), ("score", pa.float32())]))
    columns: dict[str, Any] = {
        "record_id": pa.array([f"r{number:03}" for number in range(count)]),
        "subject_id": pa.array(people).dictionary_encode(),
        "text": pa.array([f"said by {name}" for name in people], pa.large_string()),
        "nested": pa.array([[{"who": name, "score": 0.5}] if n % 3 else None for n, name in enumerate(people)], nested),
        "blob": pa.array([name.encode() for name in people], pa.binary()),
        "at": pa.array([datetime(2024, 1, 1, n % 24, tzinfo=UTC) for n in range(count)], pa.timestamp("ns", "UTC")),
        "price": pa.array([Decimal(n) / 100 for n in range(count)], pa.decimal128(9, 2)),
        "gaps": pa.array([None if n % 2 else n for n in range(count)], pa.int8()),
        "by_name": pa.array([[(name, n)] for n, name in enumerate(people)], pa.map_(pa.string(), pa.int32())),
    }
    table = pa.table(columns, metadata={"huggingface": '{"info": {"features": {}}}'})
    return table.set_column(7, pa.field("needed", pa.int64(), nullable=False), [pa.array(range(count), pa.int64())])


def test_parquet_keeps_schema_values_order_and_codecs(tmp_path: Path) -> None:
    table = _rich()
    codecs = dict.fromkeys(table.column_names, "zstd") | {"text": "gzip", "blob": "none", "price": "snappy"}
    codecs["nested.list.element.who"] = "brotli"
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=25, compression=codecs)
    gone = [f"r{number:03}" for number in (0, 7, 24, 25, 26, 59)]
    found = _rewrite(tmp_path / "d.parquet", tmp_path / "out.parquet", [*gone, "never there"])
    assert (found.kept, found.removed) == (54, 6)
    before, after = (pq.ParquetFile(tmp_path / name) for name in ("d.parquet", "out.parquet"))
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    assert after.schema.equals(before.schema)
    # Row group by row group: Arrow cannot put nested categories of several together.
    read = [[row for at in range(3) for row in file.read_row_group(at).to_pylist()] for file in (before, after)]
    assert read[1] == [row for row in read[0] if row["record_id"] not in gone]
    assert [after.metadata.row_group(group).num_rows for group in range(3)] == [22, 23, 9]
    shapes = [
        [(c.path_in_schema, c.compression) for c in map(file.metadata.row_group(0).column, range(10))]
        for file in (before, after)
    ]
    assert shapes[0] == shapes[1]
    assert len({codec for _, codec in shapes[0]}) == 5


def test_no_name_of_the_deleted_is_left_in_a_dictionary(tmp_path: Path) -> None:
    """An Arrow dictionary holds all values of the table it was made for, whichever of them its rows use."""
    table = _rich()
    for part, rows in (("a", table.slice(0, 30)), ("b", table.slice(30))):
        pq.write_table(rows, tmp_path / f"{part}.parquet", compression="none")
    assert b"subject-007" in (tmp_path / "b.parquet").read_bytes()
    found = _rewrite(tmp_path, tmp_path.with_name("out"), ["r007"])
    assert [file.name for file in found.rewritten] == ["a.parquet"]
    for part in ("a", "b"):
        content = (tmp_path.with_name("out") / f"{part}.parquet").read_bytes()
        assert b"subject-007" not in content
        assert b"subject-008" in content or part == "b"
    after = [row for part in "ab" for row in pq.read_table(tmp_path.with_name("out") / f"{part}.parquet").to_pylist()]
    assert after == [row for row in table.to_pylist() if row["record_id"] != "r007"]


def test_a_part_that_loses_nothing_is_copied_and_an_emptied_one_is_left_out(tmp_path: Path) -> None:
    rows = {"record_id": [f"r{n}" for n in range(9)], "subject_id": ["s"] * 9, "text": ["t"] * 9}
    parts = {"one": (0, 3), "deep/two": (3, 6), "three": (6, 9)}
    for name, (start, end) in parts.items():
        write_parquet(tmp_path / "d" / f"{name}.parquet", {key: values[start:end] for key, values in rows.items()})
    (tmp_path / "d" / "_SUCCESS").touch()
    (tmp_path / "d" / "notes.md").write_text("about r4")
    _rewrite(tmp_path / "d", tmp_path / "out", ["r0", "r6", "r7", "r8"])
    names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert names == ["deep/two.parquet", "one.parquet"]
    two = Path("deep/two.parquet")
    assert (tmp_path / "out" / two).read_bytes() == (tmp_path / "d" / two).read_bytes()
    assert open_records(tmp_path / "out", "causal-lm").ids.tolist() == ["r3", "r4", "r5", "r1", "r2"]


def test_large_row_groups_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20_000
    rows = {"record_id": [f"r{n}" for n in range(count)], "subject_id": ["s"] * count, "text": ["x" * 50] * count}
    path = write_parquet(tmp_path / "d.parquet", rows)
    assert pq.ParquetFile(path).num_row_groups == 1
    monkeypatch.setattr(rewriting, "_FLUSH_BYTES", 300_000)
    _rewrite(path, tmp_path / "out.parquet", ["r5000"])
    after = pq.ParquetFile(tmp_path / "out.parquet")
    assert after.num_row_groups > 3
    assert after.read().column("record_id").to_pylist() == [f"r{n}" for n in range(count) if n != 5000]


def test_lines_of_json_stay_as_they_are(tmp_path: Path) -> None:
    lines = [
        '{"record_id": 7, "subject_id": "a", "text": "\\u00e9  spaced", "extra": [1.50, null]}',
        '{"text":"gone","subject_id":"secret-name","record_id":8}',
        "",
        '   {"record_id": 9, "text": "é", "subject_id": "b"}',
    ]
    (tmp_path / "d.jsonl").write_text("\r\n".join(lines), "utf-8", newline="")
    found = _rewrite(tmp_path / "d.jsonl", tmp_path / "out.jsonl", ["8"])
    assert found.removed == 1
    expected = "\r\n".join([lines[0], "", lines[3]])
    assert (tmp_path / "out.jsonl").read_bytes().decode() == expected
    assert open_records(tmp_path / "out.jsonl", "causal-lm").ids.tolist() == ["7", "9"]


AWKWARD = st.text(st.sampled_from("ab \",\n\r'é;\t"), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(AWKWARD, AWKWARD), min_size=1, max_size=8),
    gone=st.sets(st.integers(0, 7), max_size=8),
    style=st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]),
    block=st.sampled_from([1, 7, 1 << 20]),
    finished=st.booleans(),
)
def test_records_of_csv_stay_as_they_are(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    gone: set[int],
    style: tuple[str, Any],
    block: int,
    finished: bool,
) -> None:
    """Quotes, line breaks inside of them, and ends of lines where two blocks meet."""
    end, quoting = style

    def written(numbers: list[int]) -> str:
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator=end, quoting=quoting)
        writer.writerow(["record_id", "text", "subject_id", "more"])
        writer.writerows([f"r{n}", rows[n][0], "s", rows[n][1]] for n in numbers)
        return buffer.getvalue()

    folder = tmp_path_factory.mktemp("csv")
    kept = [n for n in range(len(rows)) if n not in gone]
    if not kept:
        return
    whole, expected = written(list(range(len(rows)))), written(kept)
    if not finished:
        whole = whole.removesuffix(end)
        expected = expected if len(rows) - 1 in gone else expected.removesuffix(end)
    (folder / "d.csv").write_bytes(whole.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewriting, "_BLOCK", block)
        _rewrite(folder / "d.csv", folder / "out.csv", [f"r{n}" for n in gone])
    assert (folder / "out.csv").read_bytes() == expected.encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"record_id,subject_id,text\r1,a,x\r2,b,y\r", b"record_id,subject_id,text\r1,a,x\r"),
        (
            b"\xef\xbb\xbfrecord_id,subject_id,text\n2,b,y\n\n1,a,x\n",
            b"\xef\xbb\xbfrecord_id,subject_id,text\n\n1,a,x\n",
        ),
        (b'record_id,subject_id,text\n2,b,5" pipe\n1,a,6" pipe\n', b'record_id,subject_id,text\n1,a,6" pipe\n'),
        (b'record_id,subject_id,text\n1,a,"x" tail "q\n2,b,y', b'record_id,subject_id,text\n1,a,"x" tail "q\n'),
    ],
)
def test_unusual_csv(tmp_path: Path, content: bytes, expected: bytes) -> None:
    (tmp_path / "d.csv").write_bytes(content)
    _rewrite(tmp_path / "d.csv", tmp_path / "out.csv", ["2"])
    assert (tmp_path / "out.csv").read_bytes() == expected


def _as_struct(name: str) -> Any:
    return {"bytes": None, "path": name}


@pytest.mark.parametrize("image", [str, _as_struct])
def test_images_beside_the_table_come_along(tmp_path: Path, image: Callable[[str], Any]) -> None:
    """Record 2 goes; its image is an orphan, the one that it shares with record 0 is not."""
    folder = tmp_path / "d"
    names = ["pictures/0.png", "pictures/1.png", "pictures/2.png", "pictures/0.png"]
    for number, name in enumerate(names[:3]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))
    people, ids = ["a", "a", "b", "b"], ["r0", "r1", "r2", "r3"]
    rows = {"record_id": ids, "subject_id": people, "image": [image(name) for name in names], "label": [0, 1, 0, 1]}
    write_parquet(folder / "d.parquet", rows)
    found = _rewrite(folder, tmp_path / "out", ["r2", "r3"], IMAGES)
    assert found.orphans == {folder / "pictures/2.png"}
    assert sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir()) == ["0.png", "1.png"]
    table = open_records(tmp_path / "out", "image-classification")
    assert table.take([0, 1])["image"] == [png(0), png(1)]


def test_images_inside_of_the_table_are_not_looked_for(tmp_path: Path) -> None:
    """A path beside the bytes is the name the image once had."""
    image = {"bytes": png(1), "path": "was/here.png"}
    rows = {"record_id": ["a", "b"], "subject_id": ["x", "y"], "image": [image, image], "label": [0, 1]}
    found = survey(open_source(write_parquet(tmp_path / "d.parquet", rows)), IMAGES, ["a"])
    assert (found.images, found.orphans, found.removed) == (set(), set(), 1)


@pytest.mark.parametrize("name", ["../up.png", "{folder}/0.png"])
def test_images_that_cannot_move_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "0.png").write_bytes(png(0))
    named = [{"record_id": n, "subject_id": n, "image": name.format(folder=folder), "label": 0} for n in ("a", "b")]
    write_jsonl(folder / "d.jsonl", named)
    with pytest.raises(BadDataset, match=r"image path|cannot be moved"):
        _rewrite(folder, tmp_path / "out", ["a"], IMAGES)


def test_permissions_come_along(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", text_rows())
    path.chmod(0o640)
    _rewrite(path, tmp_path / "out.jsonl", ["t0"])
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o640


def test_a_damaged_page_is_named_without_its_content(tmp_path: Path) -> None:
    """The ids can be read, the text cannot."""
    rows = {
        "record_id": [f"r{n}" for n in range(99)],
        "subject_id": ["s"] * 99,
        "text": [f"secret {n}" for n in range(99)],
    }
    path = write_parquet(tmp_path / "d.parquet", rows)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(2)
    content = bytearray(path.read_bytes())
    for place in range(chunk.data_page_offset + 30, chunk.data_page_offset + 60):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(BadDataset, match=r"d\.parquet: cannot be copied") as caught:
        _rewrite(path, tmp_path / "out.parquet", ["r1"])
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize("gone", ["r1", "elsewhere"])
def test_a_full_disk_is_told(tmp_path: Path, gone: str) -> None:
    """A limit on the size of files stands for one; the writer and the plain copy meet it alike."""
    rows = {
        "record_id": [f"r{n}" for n in range(5000)],
        "subject_id": ["s"] * 5000,
        "text": [str(n**9) for n in range(5000)],
    }
    path = write_parquet(tmp_path / "d.parquet", rows)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DiskFull, match=r"no space left in .* for the copy; nothing was changed"):
            _rewrite(path, tmp_path / "out.parquet", [gone])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_nothing_to_go_leaves_the_digest(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", text_rows())
    assert _rewrite(path, tmp_path / "out.jsonl", ["elsewhere"]).removed == 0
    assert dataset_digest(tmp_path / "out.jsonl") == dataset_digest(path)
    assert json.loads(path.read_text().splitlines()[0])["record_id"] == "t0"
