"""Files and folders that appear whole or not at all, and the digests that identify them."""

import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

import rfc8785

from service.catalogue.lineage import LINEAGE


def write_atomic(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file; after a crash it holds the old content or the new, never a part of either."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, path)
    fsync_dir(path.parent)


def fsync_dir(path: Path) -> None:
    """Make the names in a folder durable; works for a file as well."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_directory(directory: Path) -> dict[str, str]:
    """Relative POSIX path -> SHA-256 of every file below a directory but its lineage, sorted by path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    names = {path: path.relative_to(directory) for path in files}
    return {name.as_posix(): digest_file(path) for path, name in names.items() if name.parts[0] != LINEAGE}


def manifest_digest(files: dict[str, str]) -> str:
    """The digest of a version: SHA-256 over the RFC 8785 JSON of its {path: SHA-256}, in hex."""
    return hashlib.sha256(rfc8785.dumps(dict(files))).hexdigest()


def draft_beside(place: Path) -> Path:
    """A free temporary name in the folder of `place`, for a directory that is to be renamed to it."""
    return place.with_name(f".incoming-{secrets.token_hex(6)}")


def copy_directory(source: Path, draft: Path) -> None:
    """A copy of a directory, links followed, flushed to disk."""
    draft.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, draft, symlinks=False)
    flush_directory(draft)


def flush_directory(directory: Path) -> None:
    """Make a complete directory durable: what is renamed into place afterwards is whole after a power cut too."""
    for path in [*directory.rglob("*"), directory]:
        fsync_dir(path)


def place_directory(draft: Path, final: Path) -> None:
    """Rename a flushed directory into place; one that is there already is kept, and the draft stays where it was.

    `final` is named after the digest of its content, so that whoever comes second brings the same bytes.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(draft, final)
    except OSError:
        if not final.is_dir():
            raise
    fsync_dir(final.parent)


def set_aside(path: Path) -> Path | None:
    """Rename what is to be destroyed, so that a reader never meets a folder with half of its files gone.

    Answers where it lies now, or None when there is nothing. The name follows from the path: what a process left there
    that died in the middle is found again.
    """
    doomed = path.with_name(f".doomed-{path.name}")
    if path.exists() or path.is_symlink():
        destroy_aside(doomed)
        with suppress(FileNotFoundError):  # somebody else has just done the same
            os.rename(path, doomed)
        fsync_dir(path.parent)
    return doomed if doomed.exists() or doomed.is_symlink() else None


def destroy_aside(doomed: Path) -> None:
    """Delete what was set aside; what is not there is fine."""
    if doomed.is_dir() and not doomed.is_symlink():
        _remove_tree(doomed)
    else:
        doomed.unlink(missing_ok=True)
    if doomed.parent.is_dir():
        fsync_dir(doomed.parent)


def _remove_tree(folder: Path) -> None:
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # another sweeper has taken away what this one was about to


def remove(path: Path) -> None:
    """Delete a file or a whole folder, also one that is half deleted; what is not there is fine."""
    doomed = set_aside(path)
    if doomed is not None:
        destroy_aside(doomed)
