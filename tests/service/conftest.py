"""An application over the test's database, and keys for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

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
