"""Deletion jobs come before references: what the scheduler knows of them, and what it sends."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import select, update

from service import queue
from service.auth.service import Principal
from service.database import reading, transaction
from service.deletion import service as deletion
from service.deletion.schemas import CreateRequest
from service.jobs import dispatch, leases, scheduler
from service.jobs.models import Job
from service.references.service import Wanted, prepare
from service.registry.models import Model
from service.settings import get_settings
from tests.service.references.support import COUNT, members, plan, publish_deletion, ready_pool, register, row, settle

Sent = Callable[[str], list[tuple[str, str]]]


@pytest.fixture
def sent(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """(task, row id) of the messages that lie in a queue of a real broker, oldest first."""
    path = redis_url.removeprefix("redis+socket://").partition("?")[0]
    monkeypatch.setenv("LETHE_BROKER_URL", f"redis+socket://{path}?virtual_host=15")
    get_settings.cache_clear()
    queue.sender.cache_clear()

    def read(name: str) -> list[tuple[str, str]]:
        messages = [json.loads(raw) for raw in reversed(client.lrange(name, 0, -1))]
        return [(m["headers"]["task"], json.loads(base64.b64decode(m["body"]))[0][0]) for m in messages]

    with redis.Redis(unix_socket_path=path, db=15) as client:
        client.flushdb()
        yield read
        client.flushdb()
    queue.sender().close()
    queue.sender.cache_clear()


def _request() -> None:
    body = {"regulation": "gdpr", "subject": {"identifiers": [{"type": "subject_id", "value": "s1"}]}}
    deletion.create(CreateRequest.model_validate(body), Principal("key_1", frozenset({"admin"})))


def _move(stage: str) -> None:
    with transaction() as session:
        session.execute(update(Job).values(stage=stage))


def _model_id() -> str:
    with reading() as session:
        return session.scalars(select(Model.id)).one()


def test_waiting_requests_and_open_jobs_make_a_model_busy(database_url: str, tmp_path: Path) -> None:
    register(tmp_path, '[batch]\nwindow = "1h"\nsafety = "1h"')
    assert (dispatch.what_jobs_need().busy, dispatch.what_jobs_need().waiting) == (set(), False)
    _request()
    assert dispatch.what_jobs_need().busy == {_model_id()}
    register(tmp_path, '[batch]\nwindow = "0s"')
    (job_id,) = dispatch.dispatch()
    assert dispatch.what_jobs_need().busy == {_model_id()}
    assert not dispatch.what_jobs_need().waiting  # the first stage needs no GPU
    _move("unlearn")
    assert dispatch.what_jobs_need().waiting
    assert leases.claim(job_id, "unlearn", "worker") is not None
    assert not dispatch.what_jobs_need().waiting


def test_the_scheduler_sends_references_to_the_gpu_queue_after_jobs(
    database_url: str, tmp_path: Path, sent: Sent
) -> None:
    register(tmp_path, '[batch]\nwindow = "0s"')
    pool_id = prepare("digits", Wanted(count=COUNT))
    scheduler.tick()
    assert sent(queue.QUEUE_GPU) == [(queue.TASK_PLAN_REFERENCES, pool_id)]
    plan(pool_id)
    _request()
    scheduler.tick()  # the job is made, and its first stage does not hold the members up
    assert [task for task, _ in sent(queue.QUEUE_CPU)] == [queue.TASK_ADVANCE]
    assert sent(queue.QUEUE_GPU)[1:] == [(queue.TASK_TRAIN_REFERENCE, members(pool_id)[0].id)]


def test_a_refresh_is_sent_when_the_model_has_nothing_else_to_do(database_url: str, tmp_path: Path, sent: Sent) -> None:
    register(tmp_path, '[batch]\nwindow = "0s"')
    pool_id = ready_pool()
    _request()
    scheduler.tick()
    publish_deletion(0)
    scheduler.tick()
    purge = (queue.TASK_REFERENCE_TABLES, pool_id)
    assert sent(queue.QUEUE_GPU) == [purge]  # it waits for nobody
    settle(pool_id)
    scheduler.tick()
    assert sent(queue.QUEUE_GPU) == [purge]
    with transaction() as session:
        session.execute(update(Job).values(status="completed"))
    scheduler.tick()
    assert sent(queue.QUEUE_GPU)[1:] == [(queue.TASK_TRAIN_REFERENCE, members(pool_id)[0].id)]
    assert row(pool_id).state == "refreshing"


def test_a_sweep_tells_members_that_they_are_gone(database_url: str, tmp_path: Path) -> None:
    register(tmp_path, '[references]\nrefresh_after = "0s"')
    pool_id = ready_pool()
    publish_deletion(0)
    scheduler.sweep()
    assert {member.state for member in members(pool_id)} == {"destroyed"}
