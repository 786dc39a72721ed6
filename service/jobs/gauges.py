"""What a scrape says about jobs: how many need a reviewer, and how near the first of their deadlines is."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select

from service.database import clock, reading
from service.deletion.models import DeletionRequest, RequestTarget
from service.jobs.models import Job
from service.jobs.waiting import DECISIONS, awaiting


def read() -> Iterator[GaugeMetricFamily]:
    """`lethe_jobs_waiting` (0 where none waits) and `lethe_jobs_waiting_due_seconds`, both by decision."""
    counts = GaugeMetricFamily(
        "lethe_jobs_waiting", "Jobs in which a reviewer has to approve or to release.", labels=("decision",)
    )
    nearest = GaugeMetricFamily(
        "lethe_jobs_waiting_due_seconds",
        "Seconds to the nearest due date of a request whose job waits for a reviewer; negative when it has passed.",
        labels=("decision",),
    )
    with reading() as session:
        now = clock(session)
        for decision in DECISIONS:
            jobs = select(Job.id).where(awaiting(decision, now))
            due = (
                select(func.min(DeletionRequest.due_at))
                .join(RequestTarget, RequestTarget.request_id == DeletionRequest.id)
                .where(RequestTarget.job_id.in_(jobs), DeletionRequest.status != "cancelled")
            )
            count = session.scalar(select(func.count()).select_from(Job).where(awaiting(decision, now)))
            counts.add_metric((decision,), float(count or 0))
            due_at = session.scalar(due)
            if due_at is not None:
                nearest.add_metric((decision,), (due_at - now).total_seconds())
    yield counts
    yield nearest
