"""The command line led to the application of the test."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient

from service.cli import client as client_module
from service.cli import watching
from service.cli.client import Client
from service.logs import configure_logging


@pytest.fixture
def connected(api: TestClient, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """`open_client` leads to the application of the test."""
    api.headers.update(admin)
    configure_logging("WARNING")  # the service is another process elsewhere; here both share standard error

    @contextmanager
    def open_client() -> Iterator[Client]:
        yield Client(api, "key")  # type: ignore[arg-type]

    monkeypatch.setattr(client_module, "open_client", open_client)
    monkeypatch.setattr(watching, "_PAUSE_SECONDS", 0.0)
    return api
