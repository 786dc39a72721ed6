"""What a scrape says about requests: how many are in which state, and how near the next due date is."""

from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select

from service.database import reading
from service.deletion.models import DeletionRequest
from service.deletion.states import FINAL


def read() -> Iterator[GaugeMetricFamily]:
    """`lethe_deletion_requests` by state and regulation, `lethe_deletion_due_seconds` by regulation."""
    counts = GaugeMetricFamily(
        "lethe_deletion_requests", "Deletion requests by state and regulation.", labels=("status", "regulation")
    )
    nearest = GaugeMetricFamily(
        "lethe_deletion_due_seconds",
        "Seconds to the nearest due date of an open request; negative when it has passed.",
        labels=("regulation",),
    )
    status, regulation = DeletionRequest.status, DeletionRequest.regulation
    with reading() as session:
        by_state = session.execute(select(status, regulation, func.count()).group_by(status, regulation)).all()
        earliest = select(regulation, func.min(DeletionRequest.due_at)).where(status.not_in(FINAL)).group_by(regulation)
        due = session.execute(earliest).all()
    now = datetime.now(UTC)
    for state, rule, count in by_state:
        counts.add_metric((state, rule), count)
    for rule, due_at in due:
        nearest.add_metric((rule,), (due_at - now).total_seconds())
    yield counts
    yield nearest
