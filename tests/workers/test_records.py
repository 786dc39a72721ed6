"""Records in memory and end to end, the split of held-out subjects, directories that appear whole or not at all."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from service.errors import BadDataset, BadParameters
from workers.modeling.directories import building, directory_digest, directory_manifest
from workers.modeling.records import MemoryRecords, chunks, held_out_key, joined, split_held_out


def people(count: int, rows: int) -> MemoryRecords:
    ids = [f"{person}-{row}" for person in range(count) for row in range(rows)]
    return MemoryRecords("causal-lm", ids, [f"p{name.split('-')[0]}" for name in ids], {"text": ids})


def test_a_quarter_of_the_subjects_is_for_selection_and_none_is_divided() -> None:
    records = people(2000, 3)
    selection, certification = split_held_out(records, b"k" * 32)
    assert len(selection) + len(certification) == len(records)
    assert not set(selection.subjects) & set(certification.subjects)
    # Binomial(2000, 1/4): sd 19.4 subjects.
    assert abs(len(set(selection.subjects)) - 500) < 80


def test_the_split_follows_the_key_and_its_definition() -> None:
    records = people(50, 1)
    key = held_out_key("ab" * 32)
    assert key == bytes.fromhex("ab" * 32)
    chosen = set(split_held_out(records, key)[0].subjects)
    expected = {
        name
        for name in records.subjects
        if int.from_bytes(hashlib.blake2b(name.encode(), key=key, digest_size=8).digest(), "big") % 4 == 0
    }
    assert chosen == expected
    assert chosen != set(split_held_out(records, b"other" * 4)[0].subjects)
    assert [len(part) for part in split_held_out(records.subset([]), key)] == [0, 0]


def test_chunks_cover_everything_once() -> None:
    assert [list(part) for part in chunks(5, 2)] == [[0, 1], [2, 3], [4]]
    assert list(chunks(0, 2)) == []


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with building(tmp_path / "made") as directory:
        (directory / "file").write_text("x")
        assert not (tmp_path / "made").exists()
    assert directory_manifest(tmp_path / "made") == {"file": hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(ZeroDivisionError), building(tmp_path / "broken") as directory:
        (directory / "file").write_text(str(1 / 0))
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    with pytest.raises(BadParameters, match="exists already"), building(tmp_path / "made"):
        pass


def test_a_digest_depends_on_names_and_content(tmp_path: Path) -> None:
    for folder, name, text in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    digests = [directory_digest(tmp_path / folder) for folder in "abcd"]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert np.all([len(digest) == 64 for digest in digests])


class Counting(MemoryRecords):
    """Notes which values are asked for."""

    asked: list[int]

    def take(self, indices):  # type: ignore[no-untyped-def]
        self.asked = list(indices)
        return super().take(indices)


def texts(names: list[str], task: str = "causal-lm", role: str = "text") -> Counting:
    return Counting(task, names, [f"s-{name}" for name in names], {role: [f"text of {name}" for name in names]})


def test_joined_records_come_in_the_order_asked_for_from_either_part() -> None:
    both = joined(texts(["a", "b", "c"]), texts(["long-name", "y"]))
    assert len(both) == 5
    assert both.ids.tolist() == ["a", "b", "c", "long-name", "y"]
    assert both.subjects.tolist() == ["s-a", "s-b", "s-c", "s-long-name", "s-y"]
    assert both.take([4, 0, 3, 0])["text"] == ["text of y", "text of a", "text of long-name", "text of a"]
    part = both.subset([3, 1, 4]).subset([2, 0])
    assert part.ids.tolist() == ["y", "long-name"]
    assert part.take([0, 1])["text"] == ["text of y", "text of long-name"]
    assert part.rows_of(["long-name"]).tolist() == [1]
    assert both.subset([]).take([]) == {"text": []}
    assert both.column("text") == both.take(range(5))["text"]
    assert part.column("text") == ["text of y", "text of long-name"]


def test_joining_reads_nothing_and_later_only_what_is_asked_for() -> None:
    first, second = texts(["a", "b", "c"]), texts(["x"])
    both = joined(first, second)
    assert not hasattr(first, "asked")
    both.take([3, 1])
    assert (first.asked, second.asked) == ([1], [0])


def test_joined_records_can_be_joined_again_and_nothing_adds_nothing() -> None:
    first = texts(["a"])
    assert joined(first, texts([])) is first
    three = joined(joined(first, texts(["b"])), texts(["c"]))
    assert three.take([2, 1, 0])["text"] == ["text of c", "text of b", "text of a"]


@pytest.mark.parametrize(("task", "role"), [("text-classification", "text"), ("causal-lm", "prompt")])
def test_records_of_different_kinds_are_not_joined(task: str, role: str) -> None:
    with pytest.raises(BadDataset, match="different kinds"):
        joined(texts(["a"]), texts(["b"], task, role))


@pytest.mark.parametrize("records", [texts(["a", "b"]), joined(texts(["a"]), texts(["b"]))])
def test_unknown_records_are_counted_and_not_named(records: MemoryRecords) -> None:
    with pytest.raises(BadDataset, match="1 of 2 record ids") as caught:
        records.rows_of(["b", "jane@example.org"])
    assert "jane" not in str(caught.value)
