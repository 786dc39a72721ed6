"""The keyed split of held-out subjects, and directories that appear whole or not at all."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from service.errors import BadParameters
from tests.workers.factories import MemoryRecords
from workers.modeling.directories import building, directory_digest, directory_manifest
from workers.modeling.records import chunks, held_out_key, split_held_out


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
