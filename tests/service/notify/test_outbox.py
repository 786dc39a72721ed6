"""The outbox: a message that is sent to the broker has not been tried yet, and of its copies one is delivered."""

from datetime import timedelta

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import select, update

from service import queue
from service.database import clock, reading, transaction
from service.jobs import scheduler
from service.notify import outbox
from service.notify.models import OutboxMessage
from service.settings import get_settings


def _put(age: timedelta = timedelta()) -> str:
    with transaction() as session:
        return outbox.put(session, outbox.WEBHOOK, "req_1", clock(session) - age)


def _row(message_id: str) -> OutboxMessage:
    with reading() as session:
        return session.get_one(OutboxMessage, message_id)


def _make_due(message_id: str) -> None:
    with transaction() as session:
        due = clock(session) - timedelta(seconds=1)
        session.execute(update(OutboxMessage).where(OutboxMessage.id == message_id).values(not_before=due))


def test_a_broker_that_is_down_uses_up_no_try(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message_id = _put()
    monkeypatch.setenv("LETHE_BROKER_URL", "redis://127.0.0.1:1/0")
    get_settings.cache_clear()
    queue.sender.cache_clear()
    try:
        with pytest.raises(OperationalError):
            scheduler.tick()
        assert _row(message_id).attempts == 0
        monkeypatch.delenv("LETHE_BROKER_URL")
        get_settings.cache_clear()
        queue.sender.cache_clear()
        _make_due(message_id)
        scheduler.tick()
    finally:
        queue.sender.cache_clear()
    assert _row(message_id).attempts == 0
    (sent,) = (get_settings().home / "run" / "messages").iterdir()
    assert queue.TASK_DELIVER in sent.read_text()
    assert sent.name.endswith(f".{queue.QUEUE_NOTIFY}.msg")


def test_what_was_taken_is_due_again_in_step_with_its_age(database_url: str) -> None:
    ages = {_put(age): age for age in (timedelta(), timedelta(hours=2), timedelta(days=9))}
    with transaction() as session:
        now = clock(session)
        assert {message.id for message in outbox.take_due(session)} == set(ages)
    waits = [_row(message_id).not_before - now for message_id in ages]
    for wait, wanted in zip(waits, (timedelta(seconds=10), timedelta(hours=1), timedelta(hours=6)), strict=True):
        assert abs(wait - wanted) < timedelta(seconds=5)
    with transaction() as session:
        assert outbox.take_due(session) == []


def test_of_several_copies_one_begins(database_url: str) -> None:
    message_id = _put()
    with transaction() as session:
        assert [outbox.begin_try(session, message_id, 0) for _ in range(3)] == [1, None, None]
    row = _row(message_id)
    with reading() as session:
        assert row.not_before > clock(session) + timedelta(seconds=get_settings().webhooks.timeout_seconds)
    with transaction() as session:
        outbox.note_error(session, message_id, 1, "x" * 900)
        assert outbox.begin_try(session, message_id, 1) == 2
        assert outbox.begin_try(session, "out_nothing", 0) is None
    assert (_row(message_id).attempts, _row(message_id).last_error) == (2, "x" * 500)


def test_messages_that_only_wake_the_scheduler_are_removed(database_url: str) -> None:
    with transaction() as session:
        outbox.put(session, outbox.REQUEST_ACCEPTED, "mod_1")
    scheduler.tick()
    with reading() as session:
        assert list(session.scalars(select(OutboxMessage))) == []
