"""Sealing, opening, and shredding by losing the key."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import Gone, Unavailable
from service.settings import get_settings
from service.subjects import vault


def test_what_is_sealed_can_be_opened_for_the_same_row_only(home: Path) -> None:
    payload = {"identifiers": [{"type": "email", "value": "jane@example.org"}], "note": "née Müller"}
    sealed, wrapped = vault.seal(payload, "req_1")
    assert vault.unseal(sealed, wrapped, "req_1") == payload
    assert b"jane" not in sealed + wrapped
    with pytest.raises(Gone):
        vault.unseal(sealed, wrapped, "req_2")
    with pytest.raises(Gone):
        vault.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), wrapped, "req_1")


def test_each_payload_has_its_own_key(home: Path) -> None:
    first, second = vault.seal({}), vault.seal({})
    assert first[1] != second[1]
    with pytest.raises(Gone):
        vault.unseal(first[0], second[1])


def test_the_master_key_is_made_once_and_only_for_its_owner(home: Path) -> None:
    vault.derive_key("test")
    path = home / "keys" / "master.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(path.read_text().strip())) == 32
    assert [file.name for file in path.parent.iterdir()] == ["master.key"]


def test_processes_that_start_at_once_agree_on_the_master_key(home: Path) -> None:
    program = "from service.subjects import vault; print(vault.derive_key('test').hex())"
    environment = os.environ | {"LETHE_HOME": str(home)}
    started = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {process.communicate()[0] for process in started}
    assert len(answers) == 1


def test_a_configured_key_must_be_hex(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_MASTER_KEY", "not hex")
    get_settings.cache_clear()
    with pytest.raises(Unavailable, match="LETHE_MASTER_KEY must hold 64 hex digits"):
        vault.derive_key("test")
