"""An application over the test's database, and keys for it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from service.auth import service as auth
from service.database import transaction
from tests.service import factories

MakeKey = Callable[..., dict[str, str]]


@pytest.fixture
def api(database_url: str) -> Iterator[TestClient]:
    """A client of the application; a failure inside it is an answer, as for any caller."""
    from service.main import create_app  # here: most tests of this folder need no application

    with TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def make_key(database_url: str) -> MakeKey:
    """Headers with a new key of the given roles."""

    def make(*roles: str) -> dict[str, str]:
        with transaction() as session:
            _, text = auth.create_key(session, "test", roles)
        return {"authorization": f"Bearer {text}"}

    return make


@pytest.fixture
def admin(make_key: MakeKey) -> dict[str, str]:
    """Headers of a key that may do everything."""
    return make_key("admin")


@pytest.fixture
def digits(database_url: str, tmp_path: Path) -> str:
    """The name of a registered image model."""
    factories.register_images(tmp_path)
    return "digits"


@pytest.fixture
def server(database_url: str, digits: str) -> Iterator[str]:
    """The address of the API in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "service.main:create_app", "--port", str(port)]
    environment = {**os.environ, "LETHE_LOG_LEVEL": "WARNING"}
    process = subprocess.Popen([*command, "--no-access-log", "--log-level", "warning"], env=environment)
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            httpx.get(f"{url}/healthz")
            break
        except httpx.HTTPError:
            time.sleep(0.05)
    yield url
    process.terminate()
    assert process.wait(20) is not None
