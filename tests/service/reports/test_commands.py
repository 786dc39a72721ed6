"""`lethe report verify` and `lethe audit verify`: lines, JSON and exit codes."""

import json
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from service.audit import sequencer
from service.audit import service as audit
from service.audit.models import AuditEvent
from service.cli.main import main
from service.database import transaction
from service.reports import service
from service.settings import get_settings


@pytest.fixture
def path(bundle: bytes, tmp_path: Path) -> Path:
    file = tmp_path / "bundle.zip"
    file.write_bytes(bundle)
    return file


def test_a_bundle_that_verifies(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = get_settings().home / "keys" / "signing.pub.pem"
    assert main(["report", "verify", str(path), "--public-key", str(key)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "verified"
    assert all(line.startswith("ok") for line in lines[:-1])
    assert any("the trusted key" in line for line in lines)


def test_a_bundle_that_does_not(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(path.read_bytes().replace(b'"days_taken"', b'"days_tAken"', 1))
    assert main(["report", "verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "NOT VERIFIED"
    assert "FAILED" in out


def test_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "verify", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert told["key_is_trusted"] is False
    assert {"check", "ok", "detail"} == told["findings"][0].keys()


def test_bad_usage_is_one_line(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "k.pem").write_text("no key")
    for arguments in (
        ["report", "verify", str(tmp_path / "missing.zip")],
        ["report", "verify", str(path), "--public-key", str(tmp_path / "k.pem")],
        ["report", "verify"],
        ["audit", "verify", "--events", str(path)],
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("lethe: ")
        assert error.count("\n") == 1


def test_exported_events(written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from service.reports.bundle import events_json

    file = tmp_path / "events.json"
    file.write_bytes(events_json(service.read_report(written)))
    assert main(["audit", "verify", "--events", str(file)]) == 0
    file.write_bytes(file.read_bytes().replace(b'"gdpr"', b'"ccpa"'))
    assert main(["audit", "verify", "--events", str(file)]) == 1
    assert "does not match its leaf hash" in capsys.readouterr().out


def fill_log(events: int = 1100) -> None:
    with transaction() as session:
        audit.record_all(session, "test", actor="test", events=[(f"req_{index}", {}) for index in range(events)])
    assert sequencer.seal() == events


def test_the_whole_log(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill_log()
    assert main(["audit", "verify"]) == 0
    assert "verified: 1,100 sealed events" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (update(AuditEvent).where(AuditEvent.sequence == 1050).values(actor="x"), "does not match its leaf hash"),
        (update(AuditEvent).where(AuditEvent.sequence == 7).values(chain_hash="0" * 64), "does not follow from"),
        (delete(AuditEvent).where(AuditEvent.sequence == 1001), "has no event 1001"),
        (delete(AuditEvent).where(AuditEvent.sequence == 500), "sequence 501 where 500 should be"),
        (delete(AuditEvent).where(AuditEvent.sequence > 1090), "events were taken off the end"),
    ],
)
def test_a_log_that_was_changed(
    database_url: str, capsys: pytest.CaptureFixture[str], change: object, line: str
) -> None:
    fill_log()
    with transaction() as session:
        session.execute(change)  # type: ignore[call-overload]
    assert main(["audit", "verify", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert any(line in fault for fault in told["faults"]), told
