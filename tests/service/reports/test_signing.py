"""The signing key: made once, for its owner alone, and never replaced."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import Invalid, Unavailable
from service.reports import signing


def test_the_key_is_made_once_with_its_public_half(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(signing.load_or_create_key, [tmp_path] * 8))
    assert len({signing.key_id(key.public_key()) for key in keys}) == 1
    private = tmp_path / "keys" / "signing.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    public = signing.load_public_key((tmp_path / "keys" / "signing.pub.pem").read_bytes(), "signing.pub.pem")
    assert signing.key_id(public) == signing.key_id(keys[0].public_key())
    assert sorted(path.name for path in private.parent.iterdir()) == ["signing.pem", "signing.pub.pem"]


def test_a_damaged_key_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "signing.pem").write_text("not a key")
    with pytest.raises(Unavailable, match=r"signing\.pem"):
        signing.load_or_create_key(tmp_path)
    assert (tmp_path / "keys" / "signing.pem").read_text() == "not a key"


def test_another_kind_of_public_key_is_refused() -> None:
    with pytest.raises(Invalid, match=r"k\.pem is not a public key"):
        signing.load_public_key(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "k.pem")


def test_the_signed_text_is_what_any_json_library_writes(tmp_path: Path) -> None:
    key = signing.load_or_create_key(tmp_path)
    signed = signing.sign_files(key, {"b": b"2", "a": b"1"})
    text = json.dumps(signed["files"], sort_keys=True, separators=(",", ":")).encode()
    key.public_key().verify(bytes.fromhex(signed["signature"]), text)
