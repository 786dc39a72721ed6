"""OpenAPI tells the truth: whatever a stranger sends by it, no answer is outside of it and none is a failure."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.conftest import MakeKey

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method"
)


@pytest.mark.e2e
@pytest.mark.slow
def test_every_answer_is_in_the_schema(server: str, make_key: MakeKey, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    key = make_key("admin")["authorization"]
    # The event stream of a job that exists ends only with the job.
    options = ["--checks", CHECKS, "--max-examples", "8", "--exclude-path-regex", "events$", "--seed", "1"]
    command = [program, "run", f"{server}/openapi.json", "--header", f"Authorization: {key}", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:]
