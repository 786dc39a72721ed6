"""The service's Ed25519 key and signatures over digests of files.

The key pair is made once, under HOME/keys, readable by its owner alone. What is signed is the RFC 8785 JSON of
{file name: SHA-256}; names are ASCII, so that any JSON library with sorted keys and no spaces writes the same bytes.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service.errors import Invalid, Unavailable
from service.keyfiles import write_once

SIGNATURE_SCHEMA = "lethe/signature/1"


def load_or_create_key(home: Path) -> Ed25519PrivateKey:
    """The signing key of this installation. Raises Unavailable when the file is not a key of ours."""
    path = home / "keys" / "signing.pem"
    if not path.exists():
        secret = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_once(path, secret)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unavailable(f"{path} is not a private key; restore it from a backup") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Unavailable(f"{path} is not an Ed25519 key; restore it from a backup")
    public = path.with_name("signing.pub.pem")
    if not public.exists():
        write_once(public, public_pem(key.public_key()), 0o644)
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The public key as PEM (SubjectPublicKeyInfo)."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_public_key(pem: bytes, name: str) -> Ed25519PublicKey:
    """An Ed25519 public key from PEM. Raises Invalid, naming `name`."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(f"{name} is not a public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise Invalid(f"{name} is not an Ed25519 public key")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the 32 raw bytes of the public key, in hex."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def sign_files(key: Ed25519PrivateKey, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The content of signature.json for these files."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {
        "schema": SIGNATURE_SCHEMA,
        "algorithm": "ed25519",
        "key_id": key_id(key.public_key()),
        "files": digests,
        "signature": key.sign(rfc8785.dumps(digests)).hex(),
    }
