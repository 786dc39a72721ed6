"""Routes of the audit log. The role they need is attached where the router is included (service/main.py)."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from service.audit import service
from service.database import decode_cursor, encode_cursor, reading

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("/events")
def list_events(
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    """Sealed events in order of the chain. A page may be empty while events wait for the sequencer."""
    after = int(decode_cursor(cursor, int)[0]) if cursor else 0
    with reading() as session:
        items = service.sealed_events(session, min(max(after, 0), 2**62), limit)
    following = encode_cursor(items[-1]["sequence"]) if len(items) == limit else None
    return {"items": items, "next_cursor": following, "limit": limit}


@router.get("/checkpoint")
def read_checkpoint() -> dict[str, Any]:
    """Size and chain hash of the log as it is now."""
    with reading() as session:
        return service.checkpoint(session)
