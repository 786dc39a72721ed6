"""A copy of a dataset on the way to its place: beside it under a hidden name, whole before it gets its own."""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import BadParameters, Conflict


def flush(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def drafted(place: Path, folder: bool) -> Iterator[Path]:
    """An empty file or folder beside `place` that nobody else may read, to fill and then to `put`; removed at the end.

    What a run left there that was killed is overwritten. Raises Conflict while another process fills the same.
    """
    draft = _name(place, folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        draft.mkdir(0o700, exist_ok=True)
    else:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600))
    handle = os.open(draft, os.O_RDONLY)
    try:
        _lock(handle, draft)
        try:
            _empty(draft)
            yield draft
        finally:
            remove(draft)
    finally:
        os.close(handle)


def _name(place: Path, folder: bool) -> Path:
    # A single file keeps its suffix, by which readers know what it is.
    return place.with_name(f".{place.name}.draft" if folder else f".{place.stem}.draft{place.suffix}")


def _lock(handle: int, draft: Path) -> None:
    """The lock ends with the process that holds it, however that ends."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.fstat(handle).st_ino == draft.stat().st_ino
    except OSError:
        mine = False
    if not mine:
        raise Conflict(f"{draft.parent}: another process writes the same copy; wait for it, or give another place")


def _empty(draft: Path) -> None:
    if draft.is_dir():
        for child in draft.iterdir():
            remove(child)
    else:
        os.truncate(draft, 0)


def remove(path: Path) -> None:
    """Delete a file or a whole folder; what is not there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink(missing_ok=True)


def like(draft: Path, original: Path) -> None:
    """Give a draft, and the names in its folder, the permissions of what it is a copy of, and make it durable."""
    os.chmod(draft, stat.S_IMODE(original.stat().st_mode))
    flush(draft)


def refuse_taken(place: Path) -> None:
    """Raises BadParameters where something lies already."""
    if place.exists() or place.is_symlink():
        raise BadParameters(f"{place} exists already; give a place that does not, nothing is overwritten")


def put(draft: Path, place: Path) -> None:
    """Rename a durable draft to its place. Raises BadParameters where something has come to lie meanwhile."""
    refuse_taken(place)
    os.rename(draft, place)
    flush(place.parent)
