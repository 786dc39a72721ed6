"""The command line as a whole: help, exit codes, one-line errors."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.cli.main import _Lethe, main


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    told = capsys.readouterr()
    return code, told.out, told.err


def test_help_lists_every_command_without_importing_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "--help")
    assert code == 0
    for name in _Lethe.table:
        assert name in out


def test_help_is_quick_and_light(tmp_path: Path) -> None:
    program = (
        "import sys; from service.cli.main import main; code = main(['--help']);"
        "heavy = {'torch', 'sqlalchemy', 'fastapi', 'pyarrow', 'rich', 'httpx', 'pydantic'} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    best = 9.0
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - started)
        assert done.stderr.strip() == "[]"
    assert best < 0.5


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["keys", "create"], 2, "Missing option"),
        (["keys", "create", "--role", "king", "--name", "x"], 2, "unknown role 'king'"),
        (["keys", "create", "--role", "admin", "--name", "x", "--expires", "soon"], 2, "'soon' is not a span of time"),
        (["keys", "revoke", "key_none"], 1, "there is no key key_none"),
        (["models", "versions", "nothing"], 1, "there is no model 'nothing'"),
        (["models", "register", "x", "--path", "/none", "--task", "t", "--data", "/none"], 2, "unknown task 't'"),
        (["requests", "show", "req_1"], 1, "no API key: set LETHE_API_KEY"),
        (["requests", "create", "--regulation", "gdpr", "--subject", "jane"], 2, "type:value"),
    ],
)
def test_errors_are_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    found, out, err = _run(capsys, *arguments)
    assert found == code, err
    assert err.startswith("lethe: ")
    assert said in err
    assert err.count("\n") == 1
    assert out == ""
    assert "Traceback" not in err


def test_an_unexpected_error_is_one_line_too(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("service.cli.db.require_schema", fail)
    monkeypatch.setattr("service.cli.keys.require_schema", fail)
    code, _, err = _run(capsys, "keys", "list")
    assert (code, err) == (1, "lethe: ZeroDivisionError: two (LETHE_DEBUG=1 shows where)\n")
    monkeypatch.setenv("LETHE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["keys", "list"])


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _run(capsys)
    assert code == 2
    assert "Usage: lethe" in err
