"""Sealing what a request says about a person, so that it can be destroyed by destroying a key.

Envelope encryption: each payload has its own AES-256-GCM key, which is itself wrapped by a key derived from the
master key (HKDF-SHA256, RFC 5869). Deleting the wrapped key makes the payload unreadable: crypto-shredding. The
master key comes from LETHE_MASTER_KEY, else from `home/keys/master.key`, made once with mode 0600.
"""

import json
import os
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.errors import Gone, Unavailable
from service.settings import get_settings

_NONCE_BYTES = 12
_KEY_BYTES = 32


def seal(payload: dict[str, Any], bound_to: str = "") -> tuple[bytes, bytes]:
    """(ciphertext, wrapped key) of a JSON object; `bound_to`, such as a row id, must be given again to open it."""
    key = os.urandom(_KEY_BYTES)
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    return _encrypt(key, text, bound_to), _encrypt(derive_key("wrapping"), key, bound_to)


def unseal(sealed: bytes, wrapped_key: bytes, bound_to: str = "") -> dict[str, Any]:
    """The payload. Raises Gone when it was not sealed under this master key, or for another row."""
    try:
        key = _decrypt(derive_key("wrapping"), wrapped_key, bound_to)
        payload: dict[str, Any] = json.loads(_decrypt(key, sealed, bound_to))
    except InvalidTag:
        raise Gone("the sealed data cannot be opened; was it written under another master key?") from None
    return payload


def derive_key(purpose: str) -> bytes:
    """A 32-byte key for one purpose, from the master key; the same on every process of an installation."""
    settings = get_settings()
    return _derive(settings.home, settings.master_key.get_secret_value(), purpose)


@lru_cache(maxsize=64)
def _derive(home: Path, configured: str, purpose: str) -> bytes:
    path = home / "keys" / "master.key"
    master = _parse(configured, "LETHE_MASTER_KEY") if configured else _stored_key(path)
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=f"lethe/{purpose}".encode()).derive(master)


def _stored_key(path: Path) -> bytes:
    if not path.exists():
        _make_key(path)
    return _parse(path.read_text("ascii").strip(), str(path))


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(_KEY_BYTES) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(draft, path)  # unlike a rename it never replaces a key that another process made meanwhile
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _parse(text: str, source: str) -> bytes:
    try:
        master = bytes.fromhex(text)
    except ValueError:
        master = b""
    if len(master) != _KEY_BYTES:
        raise Unavailable(f"{source} must hold 64 hex digits")
    return master


def _encrypt(key: bytes, text: bytes, bound_to: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, bound_to.encode())


def _decrypt(key: bytes, sealed: bytes, bound_to: str) -> bytes:
    return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode())
