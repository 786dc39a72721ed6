"""The task that delivers callbacks, to a real server: tries are counted, and the last of them ends the message."""

import json
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from service.auth.service import Principal
from service.database import clock, reading, transaction
from service.deletion import service as deletion
from service.deletion.models import DeletionRequest
from service.deletion.schemas import CreateRequest
from service.notify import outbox
from service.notify.models import OutboxMessage
from service.settings import get_settings
from tests.dying import die_before_commit
from tests.receivers import Receiver, receiving
from tests.service.factories import register_images
from workers.tasks.deliver import deliver

DELIVER = """
from workers.tasks.deliver import deliver
deliver(sys.argv[2], sys.argv[3])
"""


@pytest.fixture(autouse=True)
def _settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_WEBHOOKS__ALLOW_PRIVATE", "true")
    monkeypatch.setenv("LETHE_WEBHOOKS__MAX_ATTEMPTS", "3")
    get_settings.cache_clear()
    register_images(tmp_path)


def _message(receiver: Receiver) -> str:
    """A callback that is due."""
    subject = {"identifiers": [{"type": "subject_id", "value": "s1"}]}
    url = f"http://127.0.0.1:{receiver.port}/hook"
    body = CreateRequest.model_validate({"regulation": "gdpr", "subject": subject, "callback_url": url})
    request = deletion.create(body, Principal("key_1", frozenset({"admin"}))).request
    with transaction() as session:
        return outbox.put(session, outbox.WEBHOOK, request["id"])


def _row(message_id: str) -> OutboxMessage | None:
    with reading() as session:
        return session.get(OutboxMessage, message_id)


def _attempts(message_id: str) -> int:
    row = _row(message_id)
    assert row is not None
    return row.attempts


def _due_again(message_id: str) -> bool:
    with transaction() as session:
        due = clock(session)
        session.execute(update(OutboxMessage).where(OutboxMessage.id == message_id).values(not_before=due))
        return message_id in {message.id for message in outbox.take_due(session)}


def test_a_delivery_that_succeeds_ends_the_message() -> None:
    with receiving() as receiver:
        message_id = _message(receiver)
        deliver(message_id, "0")
    ((headers, body),) = receiver.requests
    assert headers["webhook-id"] == message_id
    assert json.loads(body)["data"]["status"] == "accepted"
    assert _row(message_id) is None


def test_tries_are_counted_and_the_last_one_ends_the_message() -> None:
    with receiving(500) as receiver:
        message_id = _message(receiver)
        for tried in range(2):
            deliver(message_id, str(tried))
            assert _attempts(message_id) == tried + 1 == len(receiver.requests)
            assert _due_again(message_id)
            assert _attempts(message_id) == tried + 1
        row = _row(message_id)
        assert row is not None
        assert row.last_error == "the callback answered 500"
        deliver(message_id, "2")
        assert _row(message_id) is None
        assert len(receiver.requests) == 3
        deliver(message_id, "2")
        assert len(receiver.requests) == 3
    with reading() as session:
        assert session.scalar(select(func.count()).select_from(DeletionRequest)) == 1


def test_copies_of_a_message_are_dropped() -> None:
    with receiving(500, 204) as receiver:
        message_id = _message(receiver)
        for _ in range(3):
            deliver(message_id, "0")
        assert len(receiver.requests) == 1
        deliver(message_id, "1")
        assert len(receiver.requests) == 2
    assert _row(message_id) is None


def test_a_worker_that_dies_after_it_delivered_has_used_up_a_try() -> None:
    with receiving() as receiver:
        message_id = _message(receiver)
        for tried in range(3):
            die_before_commit(2, DELIVER, message_id, str(tried))
            assert _attempts(message_id) == tried + 1
        deliver(message_id, "3")
        assert len(receiver.requests) == 3
    assert _row(message_id) is None


def test_a_message_about_nothing_is_removed() -> None:
    with transaction() as session:
        message_id = outbox.put(session, outbox.WEBHOOK, "req_nothing")
    deliver(message_id, "0")
    assert _row(message_id) is None
    deliver("out_nothing", "0")
