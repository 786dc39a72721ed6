"""Tasks of reference pools: draw the halves, train one member, build the tables. Each runs in a fresh process."""

import os
import socket
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from celery import shared_task

from service import queue
from service.errors import Cancelled, JobError, LeaseLost
from service.references import building, leases
from service.settings import get_settings
from workers.tasks import supervision
from workers.tasks.causes import cause_of

log = structlog.get_logger(__name__)


@shared_task(name=queue.TASK_PLAN_REFERENCES)
def plan(pool_id: str) -> None:
    """Draw the halves of a pool."""
    _take_up(queue.TASK_PLAN_REFERENCES, pool_id)


@shared_task(name=queue.TASK_TRAIN_REFERENCE)
def train(member_id: str) -> None:
    """Train one member on its half, without whoever was deleted."""
    _take_up(queue.TASK_TRAIN_REFERENCE, member_id)


@shared_task(name=queue.TASK_REFERENCE_TABLES)
def tables(pool_id: str) -> None:
    """Destroy what holds deleted people; once every member is whole, build the tables."""
    _take_up(queue.TASK_REFERENCE_TABLES, pool_id)


@dataclass(frozen=True)
class _Lease:
    """A pool's claim as the supervisor of its process sees it."""

    claim: leases.Claim
    kind = "references"

    @property
    def argument(self) -> dict[str, Any]:
        return asdict(self.claim)

    @property
    def name(self) -> str:
        what = f" reference {self.claim.number}" if self.claim.directory else ""
        return f"{self.claim.task} of pool {self.claim.pool_id}{what}"

    @property
    def claims(self) -> int:
        return self.claim.claims

    def renew(self) -> bool:
        return leases.renew(self.claim)

    def check(self) -> None:
        leases.require_wanted(self.claim)

    def release(self) -> None:
        leases.release(self.claim)


def _take_up(task: str, row_id: str) -> None:
    """Do it if it is still to be done and nobody else is on it; otherwise drop the message."""
    claim = leases.claim(task, row_id, f"{socket.gethostname()}:{os.getpid()}")
    if claim is None:
        return
    with structlog.contextvars.bound_contextvars(pool=claim.pool_id, task=task, fence=claim.fence):
        log.info("references.started", number=claim.number, claims=claim.claims)
        try:
            _check_claims(claim)
            supervision.run_process(_Lease(claim))
            log.info("references.finished", number=claim.number)
        except LeaseLost:
            log.warning("references.lease_lost", number=claim.number)
        except Cancelled:
            leases.release(claim)
        except Exception as error:  # the edge: whatever happened becomes the pool's cause of failure
            cause = cause_of(error)
            log.exception("references.failed", number=claim.number, code=cause.code)
            _record(claim, cause)


def _check_claims(claim: leases.Claim) -> None:
    if claim.claims > get_settings().jobs.max_claims:
        raise JobError(f"{_Lease(claim).name} was begun {claim.claims - 1} times and never ended; its workers vanished")


def _record(claim: leases.Claim, cause: JobError) -> None:
    try:
        building.fail(claim, cause)
    except LeaseLost:
        log.warning("references.lease_lost", number=claim.number)
