"""Records by position, whatever the file, in memory or spilled."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.datasets import records
from service.datasets.records import dataset_digest, known_ids, open_records, read_record_ids
from service.errors import BadDataset, BadParameters
from tests.service.factories import image_rows, png, text_rows, write_jsonl, write_parquet


def test_values_come_by_role_in_the_order_asked_for(tmp_path: Path) -> None:
    table = open_records(write_parquet(tmp_path / "d.parquet", image_rows()), "image-classification")
    assert len(table) == 24
    assert table.roles == ("image", "label")
    assert table.ids[:2].tolist() == ["r0000", "r0001"]
    assert table.subjects[-1] == "s5"
    taken = table.take([5, 0, 5])
    assert taken["label"] == [2, 0, 2]
    assert taken["image"] == [png(5), png(0), png(5)]
    assert table.take([]) == {"image": [], "label": []}
    assert table.column("label") == table.take(range(24))["label"]
    assert table.subset([5, 0]).column("label") == [2, 0]


def test_subsets_keep_their_own_positions(tmp_path: Path) -> None:
    table = open_records(write_parquet(tmp_path / "d.parquet", image_rows()), "image-classification")
    part = table.subset([7, 3, 9])
    assert part.ids.tolist() == ["r0007", "r0003", "r0009"]
    assert part.take([1])["image"] == [png(3)]
    assert part.subset([2]).take([0])["image"] == [png(9)]
    assert part.rows_of(["r0009", "r0007"]).tolist() == [2, 0]
    assert part.without(["r0003", "unknown"]).ids.tolist() == ["r0007", "r0009"]
    assert len(part.subset([])) == 0


def test_an_unknown_record_id_is_counted_and_not_quoted(tmp_path: Path) -> None:
    table = open_records(write_parquet(tmp_path / "d.parquet", image_rows()), "image-classification")
    with pytest.raises(BadDataset, match="2 of 3 record ids are not in the data; the first is number 2") as caught:
        table.rows_of(["r0001", "jane", "joe"])
    assert "jane" not in caught.value.detail


def test_spilling_changes_nothing(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "d.parquet", image_rows(subjects=900))
    whole = open_records(path, "image-classification")
    monkeypatch.setattr(records, "MEMORY_LIMIT", 100_000)
    spilled = open_records(path, "image-classification")
    wanted = np.random.default_rng(0).integers(0, len(whole), 200).tolist()
    assert spilled.take(wanted) == whole.take(wanted)
    assert list((home / "tmp").iterdir()) == []


def test_csv_and_jsonl_say_the_same_as_parquet(tmp_path: Path) -> None:
    rows = [{"record_id": f"00{n}", "subject_id": n, "text": f'say "{n}",\nplease', "label": n % 2} for n in range(5)]
    jsonl = open_records(write_jsonl(tmp_path / "d.jsonl", rows), "text-classification")
    lines = [f'00{n},{n},"say ""{n}"",\nplease",{n % 2}' for n in range(5)]
    (tmp_path / "d.csv").write_text("record_id,subject_id,text,label\n" + "\n".join(lines) + "\n")
    csv = open_records(tmp_path / "d.csv", "text-classification")
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    parquet = open_records(write_parquet(tmp_path / "d.parquet", columns), "text-classification")
    for table in (csv, jsonl, parquet):
        assert table.ids.tolist() == ["000", "001", "002", "003", "004"]
        assert table.subjects.tolist() == ["0", "1", "2", "3", "4"]
        assert table.take(range(5)) == parquet.take(range(5))


def test_columns_can_be_renamed(tmp_path: Path) -> None:
    rows = [{"id": "a", "who": "x", "question": "q", "answer": "b"}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    names = {"record_id": "id", "subject_id": "who", "prompt": "question", "completion": "answer"}
    table = open_records(path, "causal-lm", names)
    assert table.take([0]) == {"prompt": ["q"], "completion": ["b"]}
    with pytest.raises(BadDataset, match=r"d\.jsonl: no column 'record_id' for record_id"):
        open_records(path, "causal-lm")
    with pytest.raises(BadParameters, match="unknown column role 'image' for causal-lm"):
        open_records(path, "causal-lm", {"image": "question"})


def test_the_file_settles_text_or_prompt_and_completion(tmp_path: Path) -> None:
    rows = [{"record_id": "a", "subject_id": "x", "prompt": "p", "completion": "c"}]
    assert open_records(write_jsonl(tmp_path / "d.jsonl", rows), "causal-lm").roles == ("prompt", "completion")
    rows[0]["text"] = "t"
    assert open_records(write_jsonl(tmp_path / "e.jsonl", rows), "causal-lm").roles == ("text",)


def test_images_may_lie_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(9))
    row = {"record_id": "a", "subject_id": "x", "image": "a.png", "label": 0}
    table = open_records(write_jsonl(tmp_path / "d.jsonl", [row]), "image-classification")
    assert table.take([0])["image"] == [png(9)]
    outside = write_jsonl(tmp_path / "e.jsonl", [row | {"image": "../../etc/passwd"}])
    with pytest.raises(BadDataset, match="leaves the folder"):
        open_records(outside, "image-classification").take([0])


def test_a_digest_hangs_on_content_and_part_names_but_not_on_the_place(tmp_path: Path) -> None:
    one = write_parquet(tmp_path / "one.parquet", image_rows())
    two = write_parquet(tmp_path / "deeper" / "two.parquet", image_rows())
    assert dataset_digest(one) == dataset_digest(two)
    assert dataset_digest(two.parent) != dataset_digest(two)
    before = dataset_digest(two.parent)
    two.rename(two.with_name("three.parquet"))
    assert dataset_digest(two.parent) != before
    write_parquet(two, image_rows(labels=2))
    assert dataset_digest(two) != dataset_digest(one)


def test_record_ids_stream(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", text_rows())
    assert sum(len(batch) for batch in read_record_ids(path)) == 12
    assert known_ids(path, "record_id", ["t3", "t99"]) == {"t3"}


def test_a_line_of_json_that_mixes_types_is_named(tmp_path: Path) -> None:
    rows = [{"record_id": "a", "subject_id": "x", "text": "t"}, {"record_id": "b", "subject_id": "y", "text": 7}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    with pytest.raises(BadDataset, match=r"d\.jsonl: column 'text' mixes types"):
        open_records(path, "causal-lm")
    assert json.loads(path.read_text().splitlines()[0])["text"] == "t"
