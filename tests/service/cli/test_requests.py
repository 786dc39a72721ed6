"""`lethe requests` against the application."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.cli import client as client_module
from service.cli import importing, watching
from service.cli.main import main
from service.cli.requests import parse_subject
from service.errors import BadParameters, Unavailable
from tests.service.cli.support import document
from tests.service.deletion.support import counts

CREATE = ["requests", "create", "--regulation", "gdpr"]


@pytest.fixture
def connected(connected: TestClient, digits: str) -> TestClient:
    """There is something to talk about."""
    return connected


def test_a_request_is_created_shown_listed_and_cancelled(
    connected: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--subject", "email:jane@example.org", "--subject", "subject_id:s1", "--model", "digits"]
    request = document(capsys, *CREATE, *options, "--external-id", "T-1")
    assert (request["status"], request["external_id"]) == ("accepted", "T-1")
    assert document(capsys, "requests", "show", request["id"])["history"]
    assert main(["requests", "show", request["id"]]) == 0
    out = capsys.readouterr().out
    assert "accepted" in out
    assert "digits: open" in out
    assert "jane" not in out
    assert [item["id"] for item in document(capsys, "requests", "list", "--status", "accepted")["items"]] == [
        request["id"]
    ]
    assert main(["requests", "list"]) == 0
    assert request["id"] in capsys.readouterr().out
    assert document(capsys, "requests", "extend", request["id"], "--reason", "many at once")["extended_at"]
    assert document(capsys, "requests", "cancel", request["id"])["status"] == "cancelled"
    assert main(["requests", "retry", request["id"]]) == 1
    assert "cannot be retried" in capsys.readouterr().err


def test_lists_run_through_pages(connected: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        assert main([*CREATE, "--subject", f"subject_id:s{number}"]) == 0
    listed = document(capsys, "requests", "list", "--limit", "3")
    assert len(listed["items"]) == 3
    assert listed["next_cursor"]


def test_identifiers_come_from_standard_input(
    connected: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("email:jane@example.org\n\nphone:+49 30 123456\n"))
    assert main([*CREATE, "--subject", "-"]) == 0
    assert counts()["suppression_entries"] == 2


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("email:jane@example.org", {"type": "email", "value": "jane@example.org"}),
        ("subject_id:a:b", {"type": "subject_id", "value": "a:b"}),
        ("email:sha256:" + "a" * 64, {"type": "email", "value": "a" * 64, "format": "sha256"}),
        (" phone : +49 30 1 ", {"type": "phone", "value": "+49 30 1"}),
    ],
)
def test_subjects_are_read(text: str, identifier: dict[str, str]) -> None:
    assert parse_subject(text) == identifier


@pytest.mark.parametrize("text", ["jane@example.org", "email:", ":x", ""])
def test_other_subjects_are_refused_without_quoting_them(text: str) -> None:
    with pytest.raises(BadParameters) as caught:
        parse_subject(text)
    assert "jane@example.org," not in caught.value.detail


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--subject", "email:x@y.z", "--model", "nothing"], 2, "a model of this name is not registered"),
        (["--subject", "loyalty_card:7"], 2, "unknown identifier type"),
        (["--subject", "email:x@y.z", "--received-at", "tomorrow"], 2, "/received_at"),
    ],
)
def test_the_services_refusals_are_told(
    connected: TestClient, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert main([*CREATE, *options]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


class _Answers:
    """A client whose request goes through these states."""

    def __init__(self, *states: Any) -> None:
        self.states = list(states)

    def get(self, path: str, **_: Any) -> dict[str, Any]:
        if path.startswith("/v1/jobs"):
            return {"eta_seconds": 75.0}
        state = self.states.pop(0)
        if isinstance(state, Exception):
            raise state
        status, stage, progress = state
        target = {"model": "digits", "job_id": "job_1", "outcome": None, "base_version": 1, "new_version": None}
        view = {"id": "req_1", "due_at": "x", "days_left": 30, "regulation": "gdpr", "reason": None, "history": []}
        target |= {"verdict": None, "grade": None}
        return view | {"status": status, "stage": stage, "progress": progress, "targets": [target]}


@pytest.mark.parametrize(("end", "code"), [("completed", 0), ("failed", 1), ("rejected", 1), ("cancelled", 1)])
def test_watching_ends_with_the_request(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: str, code: int
) -> None:
    states = [("accepted", None, 0.0), ("running", "unlearn", 0.4), Unavailable("restarting"), (end, "notify", 1.0)]

    @contextmanager
    def open_client() -> Iterator[Any]:
        yield _Answers(*states)

    monkeypatch.setattr(client_module, "open_client", open_client)
    monkeypatch.setattr(watching, "_PAUSE_SECONDS", 0.0)
    assert main(["requests", "watch", "req_1", "--json"]) == code
    told = capsys.readouterr()
    assert json.loads(told.out)["status"] == end
    assert told.err.splitlines() == ["accepted 0%", "running unlearn 40%", f"{end} notify 100%"]


def test_the_time_left_comes_from_the_job() -> None:
    request = _Answers(("running", "unlearn", 0.4)).get("/v1/deletion-requests/req_1")
    assert watching._eta(_Answers(), request) == "about 1:15 left"  # type: ignore[arg-type]


def test_a_file_is_imported_line_by_line(
    connected: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "requests.csv"
    file.write_text(
        "regulation,type,value,models,external_id\n"
        "gdpr,email,a@example.org,digits,T-1\n"
        "lgpd,email,b@example.org,,\n"
        'ccpa,subject_id,"s,1",,T-3\n'
    )
    assert main(["requests", "import", str(file)]) == 1
    told = capsys.readouterr()
    assert told.out == "2 accepted, 1 refused\n"
    assert told.err == "line 3: unknown regulation; known ones are gdpr, ccpa\n"
    assert counts()["deletion_requests"] == 2
    items = document(capsys, "requests", "import", str(file), code=1)["items"]
    assert [(item["line"], item["status"]) for item in items] == [(2, 202), (3, 422), (4, 202)]
    assert counts()["deletion_requests"] == 2


LINE = '{"regulation": "gdpr", "subject": {"identifiers": [{"type": "subject_id", "value": "s1"}]}}'
NOTED = LINE[:-1] + ', "note": "one\u2028line"}'


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.jsonl", f"\n{LINE}\n\n  \n{{oops\n{NOTED}\n", [2, 5, 6]),
        ("a.jsonl", f"{LINE}\r\n\r\n{LINE}\r\n", [1, 3]),
        ("a.csv", 'regulation,type,value,note\n\ngdpr,subject_id,s1,"two\nlines"\ngdpr,subject_id,s2,\n', [3, 5]),
        ("a.json", f"[\n\n{LINE},\n\n{LINE}]", [1, 2]),
    ],
)
def test_lines_are_those_of_the_file(
    connected: TestClient,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: str,
    lines: list[int],
) -> None:
    monkeypatch.setattr(importing, "_LINES", 2)  # so that numbers go on from batch to batch
    (tmp_path / name).write_bytes(content.encode())
    items = document(capsys, "requests", "import", str(tmp_path / name), code=int("oops" in content))["items"]
    assert [item["line"] for item in items] == lines


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_long_files_are_sent_in_batches(
    connected: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    bodies = [
        {"regulation": "gdpr", "subject": {"identifiers": [{"type": "subject_id", "value": f"s{n}"}]}}
        for n in range(620)
    ]
    file = tmp_path / f"requests.{kind}"
    file.write_text(json.dumps(bodies) if kind == "json" else "\n".join(map(json.dumps, bodies)))
    items = document(capsys, "requests", "import", str(file))["items"]
    assert [item["line"] for item in items] == list(range(1, 621))
    assert counts()["deletion_requests"] == 620


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "type,value\nemail,x\n", "no column 'regulation'"),
        ("a.csv", "regulation,type,value,colour\n", "unknown column 'colour'"),
        ("a.csv", 'regulation,type,value\ngdpr,email,"' + "x\n" * 90_000, "not valid CSV"),
        ("a.json", "[{", "not valid JSON"),
        ("a.jsonl", "", "holds no requests"),
    ],
)
def test_files_that_are_none_are_refused(
    connected: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    assert main(["requests", "import", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err


def test_a_service_that_is_not_there_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LETHE_URL", "http://127.0.0.1:1")
    (home / "admin.key").write_text("lethe_key_x_y\n")
    assert main(["requests", "list"]) == 1
    assert "no answer from http://127.0.0.1:1" in capsys.readouterr().err
