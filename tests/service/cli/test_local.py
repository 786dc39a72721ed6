"""Commands that act on the database directly."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from service.audit.service import events_of
from service.auth import service as auth
from service.cli.main import main
from service.database import reading
from service.errors import Unauthorized
from tests.service.factories import image_model, image_rows, language_model, text_rows, write_jsonl, write_parquet


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_keys_are_made_listed_and_revoked(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = _json(
        capsys, "keys", "create", "--role", "reviewer", "--role", "auditor", "--name", "Ann", "--expires", "2h"
    )
    assert auth.verify(made["key"]).roles == {"reviewer", "auditor"}
    listed = _json(capsys, "keys", "list")["items"]
    assert [(item["id"], item["roles"]) for item in listed] == [(made["id"], ["reviewer", "auditor"])]
    assert made["key"] not in json.dumps(listed)
    assert main(["keys", "list"]) == 0
    assert "Ann" in capsys.readouterr().out
    assert main(["keys", "revoke", made["id"]]) == 0
    with pytest.raises(Unauthorized):
        auth.verify(made["key"])
    with reading() as session:
        events = events_of(session, [made["id"]])
    assert [(event["kind"], event["actor"]) for event in events] == [("key.created", "local"), ("key.revoked", "local")]


def test_the_admin_key_is_written_once(database_url: str, home: Path) -> None:
    file = home / "deep" / "admin.key"
    for _ in range(2):
        assert main(["keys", "ensure-admin", "--file", str(file)]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert auth.verify(file.read_text().strip()).roles == {"admin"}
    with reading() as session:
        assert len(auth.list_keys(session)) == 1
    file.write_text("spoilt")
    assert main(["keys", "ensure-admin", "--file", str(file)]) == 0
    assert auth.verify(file.read_text().strip()).roles == {"admin"}
    assert [path.name for path in file.parent.iterdir()] == ["admin.key"]


def test_models_are_registered_and_listed(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = write_parquet(tmp_path / "d.parquet", image_rows()), image_model(tmp_path / "model")
    arguments = ["--path", str(model), "--task", "image-classification", "--data", str(data)]
    version = _json(capsys, "models", "register", "digits", *arguments, "--identifiers", "email=mail,phone=tel")
    assert (version["number"], version["state"]) == (1, "serving")
    assert (
        main(["models", "register", "digits", *arguments[:1], str(image_model(tmp_path / "b", fill=1)), *arguments[2:]])
        == 0
    )
    assert "serves version 2" in capsys.readouterr().out
    assert _json(capsys, "models", "list")["items"][0]["serving"]["number"] == 2
    states = [(item["number"], item["state"]) for item in _json(capsys, "models", "versions", "digits")["items"]]
    assert states == [(2, "serving"), (1, "retired")]
    for command in (["models", "list"], ["models", "versions", "digits"]):
        assert main(command) == 0
        assert version["digest"][:12] in capsys.readouterr().out or command[1] == "list"


def test_columns_can_be_named(database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": row["record_id"], "author": row["subject_id"], "question": "q", "answer": row["text"]}
        for row in text_rows()
    ]
    data = write_jsonl(tmp_path / "d.jsonl", rows)
    columns = "record_id=id, subject_id=author, prompt=question, completion=answer"
    arguments = ["--path", str(language_model(tmp_path / "m")), "--task", "causal-lm", "--data", str(data)]
    assert _json(capsys, "models", "register", "chat", *arguments, "--columns", columns)["number"] == 1
    assert main(["models", "register", "chat", *arguments, "--columns", "record_id"]) == 2
    assert "--columns: 'record_id' is not of the form" in capsys.readouterr().err


def test_the_embedded_database_is_migrated_in_passing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from service import database

    database.close()
    assert main(["db", "status"]) == 1
    assert main(["keys", "list"]) == 0
    assert "There are no keys" in capsys.readouterr().out
    assert main(["db", "status"]) == 0
    assert main(["db", "upgrade"]) == 0
    database.close()


def test_the_catalogue_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    methods = _json(capsys, "methods")["items"]
    assert "retrain" in {item["name"] for item in methods}
    assert {"name", "kind", "needs", "parameters"} <= methods[0].keys()
    assert _json(capsys, "metrics")["items"]
    for command in ("methods", "metrics"):
        assert main([command]) == 0
        assert capsys.readouterr().out.splitlines()[0].startswith("name")


def test_doctor_tells_what_is_there(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    items = {item["name"]: item for item in _json(capsys, "doctor")["items"]}
    assert set(items) == {"home", "database", "broker", "device", "server"}
    assert all(item["ok"] for item in items.values())


def test_doctor_fails_when_something_needed_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from service import database
    from service.settings import get_settings

    monkeypatch.setenv("LETHE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("LETHE_BROKER_URL", "redis://127.0.0.1:1/0")
    get_settings.cache_clear()
    database.close()
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "MISSING database" in out
    assert "MISSING broker" in out
    database.close()
