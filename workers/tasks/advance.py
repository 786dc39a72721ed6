"""The task behind every message: claim the job's stage, run it, and record how it ended."""

import os
import socket
from functools import partial
from importlib import import_module

import structlog
from celery import shared_task

from service import queue
from service.errors import Cancelled, JobError, LeaseLost
from service.jobs import leases, service
from service.jobs.stages import AFTER_PUBLICATION, HEAVY
from service.settings import get_settings
from workers.tasks import supervision
from workers.tasks.causes import cause_of

log = structlog.get_logger(__name__)


@shared_task(name=queue.TASK_ADVANCE)
def advance(job_id: str, stage: str) -> None:
    """Run one stage of one job if it is still to be run and nobody else is on it; otherwise drop the message."""
    owner = f"{socket.gethostname()}:{os.getpid()}"
    claim = leases.claim(job_id, stage, owner)
    if claim is None:
        return
    with structlog.contextvars.bound_contextvars(job=job_id, stage=stage, fence=claim.fence):
        log.info("stage.started", claims=claim.claims)
        try:
            _check_claims(claim)
            service.enter_stage(claim)
            run = supervision.run_in_process if stage in HEAVY else supervision.run_here
            run(claim, partial(run_stage, claim))
            log.info("stage.finished")
        except LeaseLost:
            log.warning("stage.lease_lost")
        except Cancelled:
            _record(claim, lambda: service.cancel(job_id, claim.fence))
        except Exception as error:  # the edge: whatever happened becomes the job's cause of failure
            cause = cause_of(error)
            log.exception("stage.failed", code=cause.code)
            if stage in AFTER_PUBLICATION:
                # What is published cannot fail any more: the stage is begun again until it succeeds.
                leases.release(job_id, claim.fence, {"code": cause.code, "detail": cause.detail, "stage": stage})
                return
            _record(claim, lambda: service.fail(job_id, claim.fence, cause))


def run_stage(claim: leases.Claim) -> None:
    """Call the stage's function: workers.tasks.<stage>.run(work). Used here and by workers.runner."""
    from workers.tasks.work import Work

    import_module(f"workers.tasks.{claim.stage}").run(Work(claim))


def _check_claims(claim: leases.Claim) -> None:
    if claim.stage not in AFTER_PUBLICATION and claim.claims > get_settings().jobs.max_claims:
        raise JobError(f"stage {claim.stage} was begun {claim.claims - 1} times and never ended; its workers vanished")


def _record(claim: leases.Claim, write: partial[None] | object) -> None:
    try:
        write()  # type: ignore[operator]
    except LeaseLost:
        log.warning("stage.lease_lost")
