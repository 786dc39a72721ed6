"""The layers of design: pyproject.toml, [tool.importlinter]."""

import subprocess
import sys
from pathlib import Path

from tests.architecture.files import ROOT


def test_import_contracts_are_kept() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
