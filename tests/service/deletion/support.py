"""What the tests of deletion requests share."""

from typing import Any

from sqlalchemy import func, select

from service.audit.models import AuditEvent
from service.database import reading
from service.deletion.models import DeletionRequest, IdempotencyRecord, RequestTarget
from service.notify.models import OutboxMessage
from service.subjects.models import SuppressionEntry

PATH = "/v1/deletion-requests"
BATCH = "/v1/deletion-requests:batch"

INTAKE_TABLES = (DeletionRequest, RequestTarget, SuppressionEntry, IdempotencyRecord, OutboxMessage)


def body(value: str = "jane@example.org", kind: str = "email", **changes: Any) -> dict[str, Any]:
    """A request that is accepted."""
    return {"regulation": "gdpr", "subject": {"identifiers": [{"type": kind, "value": value}]}} | changes


def counts() -> dict[str, int]:
    """Rows in every table that intake writes, and request events."""
    with reading() as session:
        found = {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0 for table in INTAKE_TABLES
        }
        events = select(func.count()).select_from(AuditEvent).where(AuditEvent.kind.like("request.%"))
        return found | {"audit_events": session.scalar(events) or 0}


NOTHING = dict.fromkeys([*(table.__tablename__ for table in INTAKE_TABLES), "audit_events"], 0)
