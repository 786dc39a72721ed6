"""What a command prints, as its reader gets it."""

import json
from typing import Any

import pytest

from service.cli.main import main


def document(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The JSON document of a command that ends with this code."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)
