"""Files and folders that appear whole or not at all, and the digests that identify them."""

import hashlib
import os
import secrets
import shutil
from pathlib import Path

import rfc8785


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
    """Relative POSIX path -> SHA-256 of every file below a directory, sorted by path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): digest_file(path) for path in files}


def manifest_digest(files: dict[str, str]) -> str:
    """The digest of a version: SHA-256 over the RFC 8785 JSON of its {path: SHA-256}, in hex."""
    return hashlib.sha256(rfc8785.dumps(dict(files))).hexdigest()


def copy_directory(source: Path, beside: Path) -> Path:
    """A copy of a directory, links followed, under a temporary name in the folder of `beside`."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    draft = beside.with_name(f".incoming-{secrets.token_hex(6)}")
    try:
        shutil.copytree(source, draft, symlinks=False)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return draft


def publish_directory(draft: Path, final: Path) -> None:
    """Flush a complete directory to disk and rename it into place; one that is there already is kept instead.

    `final` is named after the digest of its content, so that whoever comes second brings the same bytes.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for path in [*draft.rglob("*"), draft]:
        fsync_dir(path)
    try:
        os.rename(draft, final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(draft)
    fsync_dir(final.parent)


def remove(path: Path) -> None:
    """Delete a file or a whole folder; what is not there is fine."""
    if path.is_dir() and not path.is_symlink():
        # Renamed first: a reader never meets a version with half of its files gone.
        doomed = path.with_name(f".doomed-{secrets.token_hex(6)}")
        try:
            os.rename(path, doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed)
        fsync_dir(path.parent)
    elif path.exists() or path.is_symlink():
        path.unlink()
        fsync_dir(path.parent)
