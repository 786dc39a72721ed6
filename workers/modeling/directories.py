"""Directories that appear whole or not at all, and their content digests.

A model version is a directory; its identity is the digest of its manifest, {relative path: SHA-256 of the file}.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.catalogue.lineage import LINEAGE
from service.errors import BadParameters

_BLOCK = 1 << 20


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, the form every digest of this project is taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_json(value: Any) -> str:
    """SHA-256 over the canonical JSON of a value, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def directory_manifest(directory: Path) -> dict[str, str]:
    """Relative POSIX path -> SHA-256 of every regular file below the directory but its lineage, sorted by path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    names = {path: path.relative_to(directory) for path in files}
    return {name.as_posix(): sha256_file(path) for path, name in names.items() if name.parts[0] != LINEAGE}


def directory_digest(directory: Path) -> str:
    """The digest of a version: SHA-256 over the canonical JSON of its manifest."""
    return sha256_json(directory_manifest(directory))


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file by one with this content; after a crash it holds the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    _sync(path.parent)


def refuse_existing(final: Path) -> None:
    """BadParameters when an output directory is already there and holds something."""
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise BadParameters(f"{final} exists already: choose another output directory or remove it")


def publish_directory(temporary: Path, final: Path) -> None:
    """Rename a complete directory into place after flushing its files to disk.

    Raises BadParameters when `final` holds something: a published directory is never overwritten.
    """
    refuse_existing(final)
    for path in temporary.rglob("*"):
        _sync(path)
    _sync(temporary)
    if final.exists():
        final.rmdir()
    os.replace(temporary, final)
    _sync(final.parent)


@contextlib.contextmanager
def building(final: Path) -> Iterator[Path]:
    """A fresh directory beside `final` that takes its name when the block ends well, and is removed otherwise."""
    refuse_existing(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f"{final.name}.partial-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        publish_directory(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
