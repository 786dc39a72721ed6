"""The yardstick of intake: the least that a FastAPI service with psycopg can do to accept a request durably.

It reads the JSON body and writes the same rows in one transaction. No key, no validation, no pseudonyms, no
encryption, no problem documents. `BENCHMARK_DSN` names the database.
"""

import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from fastapi import Body, FastAPI

from benchmarks.inserts import psycopg_statements
from service.database import new_id

POOL_SIZE = 20

_STATEMENTS = tuple(statement.encode() for statement in psycopg_statements())
_pool: "queue.SimpleQueue[psycopg.Connection]" = queue.SimpleQueue()

app = FastAPI()


@contextmanager
def _connection() -> Iterator[psycopg.Connection]:
    connection = _pool.get()
    try:
        yield connection
    finally:
        _pool.put(connection)


def _fill() -> None:
    for _ in range(POOL_SIZE):
        _pool.put(psycopg.connect(os.environ["BENCHMARK_DSN"]))


_fill()


@app.get("/healthz")
def healthz() -> dict[str, str]:
    """Answers once the pool is filled."""
    return {"status": "ok"}


@app.post("/v1/deletion-requests", status_code=202)
def accept(body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008 - FastAPI's way to say it
    """Write the rows of one request; `body` is JSON of any shape with a regulation."""
    now = datetime.now(UTC)
    row = {
        "request": new_id("req"),
        "target": new_id("tgt"),
        "suppression": new_id("sup"),
        "event": new_id("evt"),
        "message": new_id("out"),
        "pseudonym": "0" * 64,
        "sealed": b"Z" * 110,
        "data_key": b"Z" * 60,
        "now": now,
        "due": now + timedelta(days=30),
    }
    with _connection() as connection, connection.transaction():
        for statement in _STATEMENTS:
            connection.execute(statement, row)
    return {"id": row["request"], "status": "accepted", "regulation": body["regulation"], "due_at": row["due"]}
