"""The task behind every message: claim the job's stage, run it, and record how it ended."""

import errno
import os
import re
import socket
from functools import partial
from importlib import import_module

import structlog
from celery import shared_task

from service import queue
from service.errors import Cancelled, DiskFull, JobError, LeaseLost, LetheError, OutOfMemory
from service.jobs import leases, service
from service.jobs.stages import HEAVY
from service.settings import get_settings
from workers.tasks import supervision

log = structlog.get_logger(__name__)

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ALLOCATION = "DefaultCPUAllocator: can't allocate memory"


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
            _record(claim, lambda: service.fail(job_id, claim.fence, cause))


def run_stage(claim: leases.Claim) -> None:
    """Call the stage's function: workers.tasks.<stage>.run(work). Used here and by workers.runner."""
    from workers.tasks.work import Work

    import_module(f"workers.tasks.{claim.stage}").run(Work(claim))


def cause_of(error: BaseException) -> JobError:
    """The stored cause of failure: one line and a stable code. Messages of unknown errors may hold data, so only
    their type is kept."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, LetheError):
        return JobError(error.detail)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _ALLOCATION in str(error):
        return OutOfMemory("the worker ran out of memory; the serving version is untouched, retry on a larger worker")
    if _errno(error) in _NO_SPACE:
        return DiskFull("no space left under LETHE_HOME; free some and retry, the serving version is untouched")
    return JobError(f"unexpected {type(error).__name__}; the worker's log has the trace")


def _errno(error: BaseException) -> int | None:
    """The system's error number, also where a library only mentions it in its message (safetensors)."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _check_claims(claim: leases.Claim) -> None:
    if claim.claims > get_settings().jobs.max_claims:
        raise JobError(f"stage {claim.stage} was begun {claim.claims - 1} times and never ended; its workers vanished")


def _record(claim: leases.Claim, write: partial[None] | object) -> None:
    try:
        write()  # type: ignore[operator]
    except LeaseLost:
        log.warning("stage.lease_lost")
