"""Real clients against a real server: nobody is turned away."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.service.conftest import MakeKey
from tests.service.deletion.support import PATH, body, counts

CLIENTS = 64
EACH = 6


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


@pytest.mark.e2e
def test_sixty_four_clients_are_all_answered(server: str, make_key: MakeKey) -> None:
    headers = make_key("submitter")

    async def client(number: int) -> list[int]:
        async with httpx.AsyncClient(base_url=server, headers=headers, timeout=120) as http:
            answers = []
            for turn in range(EACH):
                sent = body(f"p{number}-{turn}@example.org")
                key = {"idempotency-key": f"{number}-{turn // 2}"} if turn % 2 else {}
                answers.append((await http.post(PATH, json=sent, headers=key)).status_code)
                answers.append((await http.get(PATH, params={"limit": 5})).status_code)
            return answers

    async def everybody() -> list[list[int]]:
        return await asyncio.gather(*(client(number) for number in range(CLIENTS)))

    statuses = [status for answers in asyncio.run(everybody()) for status in answers]
    assert sorted(set(statuses)) == [200, 202]
    assert counts()["deletion_requests"] == CLIENTS * EACH
