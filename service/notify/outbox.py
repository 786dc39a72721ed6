"""The outbox: what must be told to the world is a row in the transaction that makes it true.

The scheduler sends due rows as `lethe.deliver` tasks; a row is deleted when its delivery succeeded or is given up.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.orm import Session

from service.database import Insert, clock, insert_all, new_id
from service.notify.models import OutboxMessage
from service.settings import get_settings

REQUEST_ACCEPTED = "request.accepted"
WEBHOOK = "webhook"
WAITING = "webhook.waiting"
"""A job of the request has begun to wait for a reviewer; delivered only while one does."""
CALLBACKS = frozenset({WEBHOOK, WAITING})
_BACKOFF_CAP = timedelta(hours=6)
_RESEND = timedelta(seconds=10)
_INSERT = Insert(OutboxMessage.__table__, "id", "topic", "ref", "created_at", "not_before", "attempts")


def put(session: Session, topic: str, ref: str, not_before: datetime | None = None) -> str:
    """Add a message to the current transaction; `ref` is a row id and the only thing that travels."""
    now = not_before or clock(session)
    message_id = new_id("out")
    session.execute(
        insert(OutboxMessage).values(id=message_id, topic=topic, ref=ref, created_at=now, not_before=now, attempts=0)
    )
    return message_id


def put_all(session: Session, topic: str, refs: Sequence[str], now: datetime) -> None:
    """The same for several rows in one statement, and without asking the clock."""
    insert_all(session, written(topic, refs, now))


def written(topic: str, refs: Sequence[str], now: datetime) -> tuple[Insert, list[dict[str, Any]]]:
    """The same as a part of `insert_all`, for intake, which counts its round trips."""
    return _INSERT, [
        {"id": new_id("out"), "topic": topic, "ref": ref, "created_at": now, "not_before": now, "attempts": 0}
        for ref in refs
    ]


def take_due(session: Session, limit: int = 200) -> list[OutboxMessage]:
    """Due messages, each pushed into the future first, so that a crash between here and sending only delays it.

    Being sent is not being tried: whoever delivers counts that (`begin_try`).
    """
    now = clock(session)
    query = select(OutboxMessage).where(OutboxMessage.not_before <= now).order_by(OutboxMessage.id).limit(limit)
    messages = list(session.scalars(query.with_for_update(skip_locked=True)))
    for message in messages:
        # In step with its age, so that workers who are busy for hours do not find hundreds of copies.
        wait = max(_RESEND, (now - message.created_at) / 2)
        message.not_before = now + min(_BACKOFF_CAP, wait)
    return messages


def begin_try(session: Session, message_id: str, tried: int) -> int | None:
    """Count a delivery before it is made; answers its number, from 1.

    `tried` is the count that the sender saw: of several copies of a message one is delivered, and None says that this
    is another.
    """
    mine = and_(OutboxMessage.id == message_id, OutboxMessage.attempts == tried)
    # Longer than a try may last, so that the next one does not begin beside it.
    until = clock(session) + timedelta(seconds=get_settings().webhooks.timeout_seconds) + _backoff(tried + 1)
    statement = update(OutboxMessage).where(mine).values(attempts=tried + 1, not_before=until)
    return session.scalar(statement.returning(OutboxMessage.attempts))


def _backoff(tries: int) -> timedelta:
    return min(_BACKOFF_CAP, timedelta(seconds=5 * 2**tries))


def find(session: Session, message_id: str) -> OutboxMessage | None:
    """The message, or None when another delivery has already dealt with it."""
    return session.get(OutboxMessage, message_id)


def remove(session: Session, message_id: str) -> None:
    """The message is dealt with."""
    session.execute(delete(OutboxMessage).where(OutboxMessage.id == message_id))


def note_error(session: Session, message_id: str, tries: int, error: str) -> None:
    """Keep why this try failed; the next one comes after the back-off."""
    values = {"last_error": error[:500], "not_before": clock(session) + _backoff(tries)}
    session.execute(update(OutboxMessage).where(OutboxMessage.id == message_id).values(**values))
