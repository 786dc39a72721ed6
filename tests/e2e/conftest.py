"""Fixtures of the end-to-end tests: one trained model for the run, and a stack per module on Redis and PostgreSQL."""

import socket
from collections.abc import Iterator
from itertools import count

import psycopg
import pytest

from tests.e2e.world import Assets, World, running, train_digits

_numbers = count(1)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """The small ResNet on digits, trained once."""
    return train_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    redis_url: str,
    postgres_url: str,
    postgres_template: str,
) -> Iterator[World]:
    """A running stack: real Redis, real PostgreSQL, real worker processes (two on the gpu queue)."""
    number = next(_numbers)
    name = f"lethe_e2e_{number}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name} template {postgres_template}".encode())
    broker = redis_url.replace("virtual_host=0", f"virtual_host={number}")
    folder = tmp_path_factory.mktemp("world")
    url = postgres_url.replace("/postgres?", f"/{name}?")
    with running(folder, url, broker, free_port(), workers=getattr(request.module, "WORKERS", 2)) as started:
        yield started
