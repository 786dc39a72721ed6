"""Keys of an installation in files: made when first asked for, by whoever is first, for the owner's eyes alone."""

import os
import secrets
from pathlib import Path

from service.errors import Unavailable

KEY_BYTES = 32


def stored_key(path: Path) -> bytes:
    """The 32 bytes in a file of hex digits, which is made where it is missing (mode 0600).

    Raises Unavailable where the file holds something else.
    """
    if not path.exists():
        write_once(path, secrets.token_hex(KEY_BYTES).encode() + b"\n")
    return parse_key(path.read_text("ascii", errors="replace"), str(path))


def parse_key(text: str, source: str) -> bytes:
    """32 bytes from hex digits. Raises Unavailable, naming the source."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Unavailable(f"{source} must hold {2 * KEY_BYTES} hex digits; restore it from a backup")
    return key


def write_once(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that is not there yet: of several processes the first wins, and nobody sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(draft, path)  # unlike a rename it never replaces what another process made meanwhile
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
