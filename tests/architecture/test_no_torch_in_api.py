"""The API process never loads what only workers need, nor what only a report needs."""

import subprocess
import sys

from tests.architecture.files import ROOT

HEAVY = {"torch", "transformers", "datasets", "sklearn", "pyarrow", "matplotlib", "typst"}


def loaded_by(statement: str) -> set[str]:
    # A fresh process: in this one another test may have imported torch long ago.
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_probe_sees_a_heavy_module() -> None:
    assert "pyarrow" in loaded_by("import pyarrow")


def test_importing_the_api_loads_nothing_heavy() -> None:
    assert not loaded_by("import service.main") & HEAVY


def test_starting_the_command_line_loads_nothing_heavy() -> None:
    assert not loaded_by("import service.cli.main") & HEAVY


def test_importing_the_celery_app_loads_no_torch() -> None:
    # A parent that has run a torch operation leaves its forked children hanging.
    assert not loaded_by("import workers.app") & {"torch", "transformers"}


def test_light_stages_need_no_torch() -> None:
    stages = [f"workers.tasks.{stage}" for stage in ("resolve", "plan", "publish", "attest", "notify")]
    planning = ["workers.planning.ladder", "workers.planning.costs", "workers.planning.qualifying"]
    assert not loaded_by(f"import {', '.join(stages + planning)}") & {"torch", "transformers"}
