"""Real clients against a real server: nobody is turned away."""

import asyncio

import httpx
import pytest

from tests.service.conftest import MakeKey
from tests.service.deletion.support import PATH, body, counts

CLIENTS = 64
EACH = 6


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
