"""The one thing that reports read from the requests' table: whether a request is there, and whose it is."""

from sqlalchemy import column, select, table
from sqlalchemy.orm import Session

# A light table instead of the class: service.deletion lies above this package in the layers.
_REQUESTS = table("deletion_requests", column("id"), column("submitted_by"))


def submitter_of(session: Session, request_id: str) -> str | None:
    """The id of the key that submitted the request; None when there is no such request."""
    query = select(_REQUESTS.c.submitted_by).where(_REQUESTS.c.id == request_id)
    return session.scalar(query)
