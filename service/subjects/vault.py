"""Sealing what a request says about a person, so that it can be destroyed by destroying a key.

Envelope encryption: each payload has its own AES-256-GCM key, which is itself wrapped by a key derived from the
master key (HKDF-SHA256, RFC 5869). Deleting the wrapped key makes the payload unreadable: crypto-shredding. The
master key comes from LETHE_MASTER_KEY, else from `home/keys/master.key`, made once with mode 0600.
"""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.errors import Gone
from service.keyfiles import KEY_BYTES, parse_key, stored_key
from service.settings import get_settings

_NONCE_BYTES = 12


def seal(payload: dict[str, Any], bound_to: str = "") -> tuple[bytes, bytes]:
    """(ciphertext, wrapped key) of a JSON object; `bound_to`, such as a row id, must be given again to open it."""
    key = os.urandom(KEY_BYTES)
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
    master = parse_key(configured, "LETHE_MASTER_KEY") if configured else stored_key(path)
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"lethe/{purpose}".encode()).derive(master)


def _encrypt(key: bytes, text: bytes, bound_to: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, bound_to.encode())


def _decrypt(key: bytes, sealed: bytes, bound_to: str) -> bytes:
    return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode())
