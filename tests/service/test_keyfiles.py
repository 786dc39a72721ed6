"""Key files: made once, whoever is first, for their owner's eyes alone."""

import multiprocessing
import stat
from pathlib import Path

import pytest

from service.errors import Unavailable
from service.keyfiles import KEY_BYTES, stored_key, write_once


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "some.key"
    key = stored_key(path)
    assert (len(key), stored_key(path)) == (KEY_BYTES, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["some.key"]


def test_of_several_processes_the_first_wins(tmp_path: Path) -> None:
    for number in range(5):
        with multiprocessing.get_context("fork").Pool(4) as pool:
            keys = pool.map(stored_key, [tmp_path / str(number) / "some.key"] * 8, chunksize=1)
        assert len(set(keys)) == 1


@pytest.mark.parametrize("content", [b"", b"ab", b"zz" * 32, b"\xff\xfe" * 32, b"00" * 31])
def test_a_file_that_holds_no_key_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.key"
    path.write_bytes(content)
    with pytest.raises(Unavailable, match=r"some\.key must hold 64 hex digits; restore it from a backup"):
        stored_key(path)
    assert path.read_bytes() == content


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_once(path, b"first")
    write_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
