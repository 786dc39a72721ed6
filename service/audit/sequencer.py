"""The sequencer: gives committed events their place in the chain, so that writing them is never serial.

Any number of processes may run it: each takes what it sees, and the one that moves the head from the size it has read
wins; the others roll back and find the work done.
"""

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.audit.models import AuditEvent, AuditHead
from service.audit.service import EMPTY_CHAIN, chain, leaf_hash
from service.database import reading, transaction

BATCH = 1000


class _LostRaceError(Exception):
    """Another sequencer has moved the head."""


def seal() -> int:
    """Seal all events that are committed and not yet in the chain; answers how many this call sealed."""
    total = 0
    while True:
        # Looked at without a lock first: most rounds find nothing, and on SQLite a write lock is everybody's.
        with reading() as session:
            if not _waiting(session, 1):
                return total
        try:
            with transaction() as session:
                sealed = _seal_batch(session)
        except (_LostRaceError, IntegrityError):
            return total
        total += sealed
        if sealed < BATCH:
            return total


def _waiting(session: Session, limit: int) -> list[AuditEvent]:
    query = select(AuditEvent).where(AuditEvent.sequence.is_(None)).order_by(AuditEvent.id).limit(limit)
    return list(session.scalars(query))


def _seal_batch(session: Session) -> int:
    head = session.get(AuditHead, 1)
    if head is None:
        head = AuditHead(id=1, size=0, chain_hash=EMPTY_CHAIN)
        session.add(head)
        session.flush()
    events = _waiting(session, BATCH)
    if not events:
        return 0
    size, chained, rows = head.size, head.chain_hash, []
    for event in events:
        size, leaf = size + 1, leaf_hash(event)
        chained = chain(chained, leaf)
        rows.append({"event": event.id, "sequence": size, "leaf_hash": leaf, "chain_hash": chained})
    # The head moves first: on PostgreSQL its row lock makes the losers wait here, before they touch any event.
    moved = update(AuditHead).where(
        AuditHead.id == 1, AuditHead.size == head.size, AuditHead.chain_hash == head.chain_hash
    )
    result = session.execute(moved.values(size=size, chain_hash=chained).execution_options(synchronize_session=False))
    if result.rowcount != 1:  # type: ignore[attr-defined]
        raise _LostRaceError
    events_table = AuditEvent.__table__
    session.connection().execute(
        events_table.update()  # type: ignore[attr-defined]
        .where(events_table.c.id == bindparam("event"), events_table.c.sequence.is_(None))
        .values(sequence=bindparam("sequence"), leaf_hash=bindparam("leaf_hash"), chain_hash=bindparam("chain_hash")),
        rows,
    )
    return len(events)
