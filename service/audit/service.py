"""Audit events: written in the transaction of the change they record, read and checked afterwards."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import rfc8785
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.audit.models import AuditEvent, AuditHead
from service.database import Insert, insert_all, new_id

EMPTY_CHAIN = hashlib.sha256(b"").hexdigest()
"""The chain hash before the first event: SHA-256 of nothing, as for an empty RFC 6962 log."""

_LONG_NUMBER = re.compile(r"\d{16}")
_INSERT = Insert(AuditEvent.__table__, "id", "kind", "at", "actor", "ref", "data")


def record(
    session: Session, kind: str, *, actor: str, ref: str, data: dict[str, Any], at: datetime | None = None
) -> str:
    """Add an event to the current transaction; answers its id.

    `data` holds digests, counts and codes that JSON can carry, never an identifier of a person.
    """
    return record_all(session, kind, actor=actor, events=[(ref, data)], at=at)[0]


def record_all(
    session: Session, kind: str, *, actor: str, events: Sequence[tuple[str, dict[str, Any]]], at: datetime | None = None
) -> list[str]:
    """Add one event of the same kind for each (ref, data), in one statement.

    Raises ValueError for data that RFC 8785 cannot write: NaN, integers beyond 2**53, keys that are not strings.
    """
    insert, rows = written(kind, actor=actor, events=events, at=at)
    if rows:
        insert_all(session, (insert, rows))
    return [str(row["id"]) for row in rows]


def written(
    kind: str, *, actor: str, events: Sequence[tuple[str, dict[str, Any]]], at: datetime | None = None
) -> tuple[Insert, list[dict[str, Any]]]:
    """The same as a part of `insert_all`, for a caller that writes to other tables in the same round trip."""
    for _, data in events:
        _require_hashable(data)
    # Whole milliseconds: every database and JSON writer keeps them alike, and the hash is taken over the text.
    moment = (at or datetime.now(UTC)).astimezone(UTC)
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return _INSERT, [
        {"id": new_id("evt"), "kind": kind, "at": moment, "actor": actor, "ref": ref, "data": data}
        for ref, data in events
    ]


def _require_hashable(data: dict[str, Any]) -> None:
    """What cannot be hashed must fail where it is written, and not stop the sequencer later."""
    # The quick look finds NaN and what is no JSON; only long runs of digits may be integers that RFC 8785 refuses.
    if _LONG_NUMBER.search(json.dumps(data, allow_nan=False)):
        rfc8785.dumps(data)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: the form that is hashed and shown."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def leaf_hash(event: AuditEvent) -> str:
    """SHA-256(0x00 || RFC 8785 JSON of id, kind, at, actor, ref, data): the leaf hash of RFC 6962, in hex."""
    return leaf_hash_of(view(event))


def leaf_hash_of(event: dict[str, Any]) -> str:
    """The same from the public view of an event, for a verifier that has no database."""
    leaf = {key: event[key] for key in ("id", "kind", "at", "actor", "ref", "data")}
    return hashlib.sha256(b"\x00" + rfc8785.dumps(leaf)).hexdigest()


def chain(previous: str, leaf: str) -> str:
    """SHA-256(previous chain hash || leaf hash), over raw bytes, in hex."""
    return hashlib.sha256(bytes.fromhex(previous) + bytes.fromhex(leaf)).hexdigest()


def view(event: AuditEvent) -> dict[str, Any]:
    """What a reader gets; `sequence` and the hashes are null until the event is sealed."""
    return {
        "id": event.id,
        "kind": event.kind,
        "at": timestamp(event.at),
        "actor": event.actor,
        "ref": event.ref,
        "data": event.data,
        "sequence": event.sequence,
        "leaf_hash": event.leaf_hash,
        "chain_hash": event.chain_hash,
    }


def events_of(session: Session, refs: Iterable[str]) -> list[dict[str, Any]]:
    """The events about these rows, oldest first."""
    query = select(AuditEvent).where(AuditEvent.ref.in_(list(refs))).order_by(AuditEvent.at, AuditEvent.id)
    return [view(event) for event in session.scalars(query)]


def sealed_events(session: Session, after: int, limit: int) -> list[dict[str, Any]]:
    """Sealed events with a sequence above `after`, in order of the chain."""
    query = select(AuditEvent).where(AuditEvent.sequence > after).order_by(AuditEvent.sequence).limit(limit)
    return [view(event) for event in session.scalars(query)]


def checkpoint(session: Session) -> dict[str, Any]:
    """Size and chain hash of the sealed log, and the time of its last event."""
    head = session.get(AuditHead, 1)
    if head is None or head.size == 0:
        return {"size": 0, "chain_hash": EMPTY_CHAIN, "time": None}
    last = session.scalar(select(AuditEvent.at).where(AuditEvent.sequence == head.size))
    return {"size": head.size, "chain_hash": head.chain_hash, "time": timestamp(last) if last else None}


def verify_chain(events: Iterable[dict[str, Any]], previous: str = EMPTY_CHAIN) -> tuple[str, str | None]:
    """Check views of consecutive sealed events against each other.

    Answers the chain hash after the last good event, and a line that names the first bad one, or None.
    """
    expected: int | None = None
    for event in events:
        if expected is not None and event["sequence"] != expected:
            return previous, f"event {event['id']}: sequence {event['sequence']} where {expected} should be"
        if leaf_hash_of(event) != event["leaf_hash"]:
            return previous, f"event {event['id']}: its content does not match its leaf hash"
        if chain(previous, event["leaf_hash"]) != event["chain_hash"]:
            return previous, f"event {event['id']}: its chain hash does not follow from the event before it"
        previous, expected = event["chain_hash"], event["sequence"] + 1
    return previous, None
