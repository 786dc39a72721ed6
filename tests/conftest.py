"""Fixtures for all tests: private servers for the run, a database and a home for each test."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

import psycopg
import pytest

from service import database
from service.settings import get_settings
from tests.servers import ServerMissingError, postgres_server, queue_server

ROOT = Path(__file__).parent.parent
_numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests for a GPU are the only ones that may be skipped: nothing installs a GPU."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _run(server: AbstractContextManager[str]) -> Iterator[str]:
    """A missing server ends the run: a suite that skips half of itself looks green."""
    try:
        with server as url:
            yield url
    except ServerMissingError as error:
        pytest.exit(f"error: {error}", returncode=1)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The broker URL of a real, private queue server."""
    yield from _run(queue_server())


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a real, private PostgreSQL."""
    yield from _run(postgres_server())


def _migrate(url: str, home: Path) -> None:
    # Its own process: Alembic configures logging and reads the settings, which tests change.
    environment = {**os.environ, "LETHE_DATABASE_URL": url, "LETHE_HOME": str(home)}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.exit(f"error: migrating {url} failed:\n{done.stdout}{done.stderr}", returncode=1)


def _execute(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.encode())


def _database(server: str, name: str) -> str:
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a migrated database: copying it takes a tenth of the time of migrating anew."""
    _execute(postgres_url, "create database lethe_template")
    _migrate(_database(postgres_url, "lethe_template"), tmp_path_factory.mktemp("migrate"))
    return "lethe_template"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, for the same reason."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}", path.parent)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty LETHE_HOME, with no setting from outside."""
    for name in [name for name in os.environ if name.startswith("LETHE_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("LETHE_HOME", str(folder))
    get_settings.cache_clear()
    yield folder
    get_settings.cache_clear()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A migrated, empty database of this test alone, as the settings' database too; once on each kind."""
    drop: list[tuple[str, str]] = []
    if request.param == "sqlite":
        path = home / "lethe.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        url = f"sqlite:///{path}"
    else:
        server, name = request.getfixturevalue("postgres_url"), f"lethe_test_{next(_numbers)}"
        _execute(server, f"create database {name} template {request.getfixturevalue('postgres_template')}")
        drop.append((server, f"drop database {name} with (force)"))
        url = _database(server, name)
    monkeypatch.setenv("LETHE_DATABASE_URL", url)
    get_settings.cache_clear()
    yield url
    database.close()
    get_settings.cache_clear()
    for server, statement in drop:
        _execute(server, statement)


@pytest.fixture
def sqlite_home(home: Path, sqlite_template: Path) -> Iterator[Path]:
    """A home with an empty SQLite database, for tests in which the kind of database plays no part."""
    shutil.copyfile(sqlite_template, home / "lethe.db")
    database.close()
    yield home
    database.close()
