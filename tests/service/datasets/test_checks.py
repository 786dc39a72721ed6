"""What is refused at registration, each with one line that names the column or file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.datasets.checks import check_records
from service.errors import BadDataset
from tests.service.factories import image_rows, png, text_rows, write_jsonl, write_parquet

IMAGES = "image-classification"

Rows = dict[str, list[Any]]


def test_a_good_dataset_is_counted(tmp_path: Path) -> None:
    facts = check_records(write_parquet(tmp_path / "d.parquet", image_rows()), IMAGES, identifiers={"email": "mail"})
    assert (facts.records, facts.subjects, facts.files, facts.num_labels) == (24, 6, 1, 3)
    assert facts.columns == {
        "record_id": "record_id",
        "subject_id": "subject_id",
        "image": "image",
        "label": "label",
    }


def test_a_folder_of_parts_is_one_dataset(tmp_path: Path) -> None:
    rows = image_rows()
    for part in (0, 1):
        chosen = {name: values[part * 12 : part * 12 + 12] for name, values in rows.items()}
        write_parquet(tmp_path / "parts" / f"part-{part}.parquet", chosen)
    (tmp_path / "parts" / "_SUCCESS").touch()
    facts = check_records(tmp_path / "parts", IMAGES)
    assert (facts.records, facts.files) == (24, 2)


def _drop(name: str) -> Callable[[Rows], None]:
    return lambda rows: rows.pop(name) and None


def _set(name: str, value: Any) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[name][5] = value

    return change


def _labels(kind: Callable[[int], Any]) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows["label"] = [kind(label) for label in rows["label"]]

    return change


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_drop("label"), r"d\.parquet: no column 'label'"),
        (_drop("record_id"), r"d\.parquet: no column 'record_id'"),
        (_drop("mail"), r"d\.parquet: no column 'mail'"),
        (_set("record_id", "r0000"), r"column 'record_id' has 1 duplicate record ids, the first in row 6"),
        (_set("record_id", None), r"column 'record_id' holds null"),
        (_set("subject_id", None), r"column 'subject_id' holds null"),
        (_set("subject_id", ""), r"column 'subject_id' holds null"),
        (_set("label", None), r"column 'label' holds null"),
        (_set("label", -1), r"column 'label' holds -1; labels start at 0"),
        (_set("label", 7), r"column 'label' holds label 7, but the model has 3 labels"),
        (_labels(lambda label: float("nan")), r"column 'label' holds NaN"),
        (_labels(lambda label: label + 0.5), r"column 'label' does not hold whole numbers"),
        (_labels(str), None),
        (_labels(float), None),
        (_labels(lambda label: f"class {label}"), r"column 'label' does not hold whole numbers"),
        (_set("image", None), r"column 'image' holds null"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, spoil: Callable[[Rows], None], said: str | None) -> None:
    rows = image_rows()
    spoil(rows)
    path = write_parquet(tmp_path / "d.parquet", rows)
    if said is None:
        assert check_records(path, IMAGES, num_labels=3).num_labels == 3
        return
    with pytest.raises(BadDataset, match=said) as caught:
        check_records(path, IMAGES, identifiers={"email": "mail"}, num_labels=3)
    assert "\n" not in caught.value.detail
    assert "Person" not in caught.value.detail


@pytest.mark.parametrize("content", [b"GIF89a", png(3)[:-5], png(3).replace(b"IDAT", b"IDAX"), b""])
def test_a_first_image_that_is_not_whole_is_named(tmp_path: Path, content: bytes) -> None:
    rows = image_rows()
    rows["image"][0] = {"bytes": content, "path": None}
    with pytest.raises(BadDataset, match=r"d\.parquet: column 'image': its first image is not a whole PNG or JPEG"):
        check_records(write_parquet(tmp_path / "d.parquet", rows), IMAGES)


def test_images_may_be_plain_bytes(tmp_path: Path) -> None:
    rows = image_rows()
    rows["image"] = [image["bytes"] for image in rows["image"]]
    assert check_records(write_parquet(tmp_path / "d.parquet", rows), IMAGES).records == 24


def test_a_corrupt_page_names_the_part(tmp_path: Path) -> None:
    rows = image_rows(subjects=40)
    for part in (0, 1):
        named = rows | {"record_id": [f"{part}-{name}" for name in rows["record_id"]]}
        write_parquet(tmp_path / f"part-{part}.parquet", named)
    path = tmp_path / "part-1.parquet"
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    for place in range(start + 30, start + 60):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(BadDataset, match=r"part-1\.parquet: cannot be read"):
        check_records(tmp_path, IMAGES)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.parquet", b"PAR1 no", r"d\.parquet: cannot be read"),
        ("d.parquet", b"", r"d\.parquet: cannot be read"),
        ("d.jsonl", b'{"record_id": "a", "subject_id": "b", "text": "c"}\n{oops\n', r"d\.jsonl: line 2 is not JSON"),
        (
            "d.jsonl",
            b'{"record_id": "a", "subject_id": "b", "text": "c"}\n[1]\n',
            r"line 2 is not a JSON object",
        ),
        ("d.jsonl", b'{"record_id": "a", "subject_id": "b", "text": "c"}\n{"text": 1}\n', r"'record_id' in line 2"),
        ("d.jsonl", b"", r"d\.jsonl: no column 'record_id'"),
        ("d.csv", b"record_id,subject_id,text\n", r"d\.csv: holds no records"),
        ("d.csv", b"record_id,subject_id,text\na,b\n", r"d\.csv: cannot be read"),
        ("d.csv", b"record_id,subject_id,text\na,,c\n", r"d\.csv: column 'subject_id' holds null"),
        ("d.csv", b"record_id,subject_id,text\n\xff,b,c\n", r"d\.csv: cannot be read"),
        ("d.txt", b"", r"d\.txt: give a Parquet, JSONL or CSV file"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadDataset, match=said):
        check_records(tmp_path / name, "causal-lm")


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    array = pa.array([b"a", b"\xff"]).cast(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 2, array.buffers())
    table = pa.table({"record_id": ["a", "b"], "subject_id": ["x", "y"], "text": broken})
    pq.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(BadDataset, match=r"d\.parquet: .*UTF-8"):
        check_records(tmp_path / "d.parquet", "causal-lm")


def test_missing_and_mixed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no such file"):
        check_records(tmp_path / "none.parquet", IMAGES)
    with pytest.raises(BadDataset, match=r"holds no \.parquet"):
        check_records(tmp_path, IMAGES)
    write_jsonl(tmp_path / "a.jsonl", text_rows())
    (tmp_path / "b.csv").write_text("record_id,subject_id,text\n")
    with pytest.raises(BadDataset, match="mixes csv and jsonl"):
        check_records(tmp_path, "causal-lm")


def test_identifier_types_are_checked(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "d.parquet", image_rows())
    with pytest.raises(BadDataset, match="lower-case"):
        check_records(path, IMAGES, identifiers={"E mail": "mail"})
    with pytest.raises(BadDataset, match="subject column"):
        check_records(path, IMAGES, identifiers={"subject_id": "mail"})
    assert check_records(path, IMAGES, identifiers={"loyalty_card": "tel"}).records == 24
