"""Content hashes: what counts as content and what does not; the table of duplicates and what can be asked of it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.errors import BadDataset, BadModel
from tests.workers.factories import conversations, digits, png
from workers.lineage.duplicates import (
    content_digests,
    content_hashes,
    find_duplicates,
    near_duplicates_of,
    read_duplicates,
    without_records,
    write_duplicates,
)
from workers.modeling.records import MemoryRecords

LONG = " ".join(f"word{at}" for at in range(40))


def images(*values: bytes, labels: list[int] | None = None) -> MemoryRecords:
    ids = [f"i{at}" for at in range(len(values))]
    columns: dict[str, list[Any]] = {"image": list(values), "label": labels or [0] * len(values)}
    return MemoryRecords("image-classification", ids, ids, columns)


def texts(*values: str, ids: str | None = None) -> MemoryRecords:
    names = list(ids or "abcdefghij")[: len(values)]
    return MemoryRecords("causal-lm", names, names, {"text": list(values)})


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def rows(table: pa.Table) -> list[tuple[str, str, str]]:
    return [(row["left"], row["right"], row["kind"]) for row in table.to_pylist()]


def test_a_hash_is_of_pixels_and_label_and_not_of_the_packing() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = Image.fromarray(pixels)
    records = images(
        png(pixels), encoded(image, compress_level=0), encoded(image, "BMP"), png(pixels.reshape(4, 16)),
        png(pixels + 1), encoded(image.convert("RGB")), png(pixels), labels=[3, 3, 3, 3, 3, 3, 4],
    )  # fmt: skip
    hashes = content_hashes(records)
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes)) == 5
    assert {len(value) for value in hashes} == {16}


def test_a_palette_is_part_of_the_picture() -> None:
    first = Image.new("P", (4, 4))
    first.putdata([0, 1] * 8)
    second = first.copy()
    first.putpalette([255, 0, 0, 0, 255, 0])
    second.putpalette([0, 0, 255, 0, 255, 0])
    hashes = content_hashes(images(encoded(first), encoded(second), encoded(first.convert("RGB"))))
    assert hashes[0] != hashes[1]
    assert hashes[0] == hashes[2]


def test_texts_are_compared_in_one_unicode_form_and_neither_borders_nor_roles_blur() -> None:
    hashes = content_hashes(texts("Zo\u00eb", "Zoe\u0308", "Zoe", "", "\udce4"))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
    pairs = [("ab", "c"), ("a", "bc"), ("c", "ab"), ("ab", "c")]
    columns = {"prompt": [p for p, _ in pairs], "completion": [c for _, c in pairs]}
    hashes = content_hashes(MemoryRecords("causal-lm", list("wxyz"), list("wxyz"), columns))
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 3


def test_ids_subjects_and_order_of_columns_are_no_content_and_hashes_begin_the_digests() -> None:
    train, _ = conversations(20)
    turned = {role: train.columns[role] for role in reversed(train.roles)}
    other = MemoryRecords(train.task, [f"x{at}" for at in range(len(train))], ["y"] * len(train), turned)
    digests = content_digests(train)
    assert digests == content_digests(other)
    assert content_hashes(train) == [digest[:16] for digest in digests]
    assert {len(digest) for digest in digests} == {32}
    assert content_digests(train.subset([])) == []


def test_an_image_that_is_none_is_bad_data() -> None:
    with pytest.raises(BadDataset, match="cannot be decoded"):
        content_hashes(images(b"no image"))


def test_images_are_compared_by_exact_content_and_label_only() -> None:
    pixels = np.full((8, 8), 100, dtype=np.uint8)
    close = pixels.copy()
    close[0, 0] += 1
    table = find_duplicates(images(png(close), png(pixels), png(pixels), png(pixels), labels=[1, 1, 1, 2]))
    assert rows(table) == [("i1", "i2", "exact")]


def test_real_images_without_copies_have_no_duplicates_and_a_planted_one_is_found() -> None:
    train, _ = digits(300, 0)
    assert find_duplicates(train).num_rows == 0
    twice = train.subset([*range(300), 17])
    twice.ids[300] = "a-copy"
    assert rows(find_duplicates(twice)) == [("a-copy", str(train.ids[17]), "exact")]


def test_a_group_of_copies_is_named_after_its_first_id_and_takes_a_row_for_each_other() -> None:
    table = find_duplicates(texts("same", "other", "same", "same", ids="dbca"))
    assert rows(table) == [("a", "c", "exact"), ("a", "d", "exact")]
    assert table["similarity"].to_pylist() == [1.0, 1.0]
    assert near_duplicates_of(table, ["c"]) == {"a", "d"}
    assert near_duplicates_of(table, ["a", "c"]) == {"d"}
    assert near_duplicates_of(table, ["b", "unknown"]) == near_duplicates_of(table, []) == set()


def test_near_duplicates_reach_the_copies_on_both_sides_and_go_one_step_only() -> None:
    changed, far = f"{LONG} end", f"{LONG} end of this much longer text here now"
    table = find_duplicates(texts(LONG, LONG, changed, changed, far))
    assert rows(table) == [
        ("a", "b", "exact"), ("a", "c", "near"), ("a", "e", "near"), ("c", "d", "exact"), ("c", "e", "near"),
    ]  # fmt: skip
    assert near_duplicates_of(table, ["b"]) == {"a", "c", "d", "e"}
    chain = pa.table({"left": ["a", "b"], "right": ["b", "c"], "similarity": [0.9, 0.9], "kind": ["near", "near"]})
    assert near_duplicates_of(chain, ["a"]) == {"b"}
    assert near_duplicates_of(chain, ["b"]) == {"a", "c"}


def test_the_same_text_with_two_labels_is_near_and_not_exact() -> None:
    columns = {"text": [LONG, LONG, "something else"], "label": [0, 1, 0]}
    table = find_duplicates(MemoryRecords("text-classification", list("abc"), list("abc"), columns))
    assert table.to_pylist() == [{"left": "a", "right": "b", "similarity": 1.0, "kind": "near"}]


def test_prompt_and_completion_count_as_one_text() -> None:
    half = LONG.split()
    columns = {
        "prompt": [" ".join(half[:20]), " ".join(half[:10])],
        "completion": [" ".join(half[20:]), " ".join(half[10:])],
    }
    table = find_duplicates(MemoryRecords("causal-lm", ["a", "b"], ["a", "b"], columns))
    assert rows(table) == [("a", "b", "near")]


def test_what_is_left_after_a_deletion_keeps_its_relations_and_names_nobody_who_is_gone() -> None:
    said = [LONG, LONG, LONG, f"{LONG} end", f"{LONG} end", "alone"]
    records = texts(*said)
    table = find_duplicates(records)
    for gone in ([], ["a"], ["d"], ["a", "b"], ["a", "b", "c"], ["a", "c", "d", "e"], list("abcdef")):
        kept = [at for at, name in enumerate(records.ids.tolist()) if name not in gone]
        assert without_records(table, gone).equals(find_duplicates(records.subset(kept))), gone


def test_a_table_comes_back_from_disk_readable_by_its_owner_alone(tmp_path: Path) -> None:
    table = find_duplicates(texts("same", "same", LONG))
    assert read_duplicates(tmp_path) is None
    write_duplicates(table, tmp_path)
    path = tmp_path / "duplicates.parquet"
    assert read_duplicates(tmp_path) == table
    assert path.stat().st_mode & 0o777 == 0o600
    first = path.read_bytes()
    write_duplicates(table, tmp_path)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["duplicates.parquet"]


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    table = find_duplicates(texts())
    assert table.num_rows == 0
    write_duplicates(table, tmp_path)
    assert read_duplicates(tmp_path) == table
    assert near_duplicates_of(table, ["a"]) == set()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "duplicates.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(BadModel, match=r"duplicates\.parquet.*damaged"):
        read_duplicates(tmp_path)
    pq.write_table(pa.table({"left": ["a"]}), path)
    with pytest.raises(BadModel, match="no column kind"):
        read_duplicates(tmp_path)
