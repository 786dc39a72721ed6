"""Keeping a lease while work runs, and stopping the work when the lease or its reason is gone.

Light stages run in this process beside a heartbeat thread. Heavy work runs in a fresh process (forks.py): its memory
returns to the machine, an out-of-memory kill hits only it, and it can be cancelled whatever pool Celery uses.
"""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from service import errors
from service.errors import Cancelled, JobError, LeaseLost, OutOfMemory
from service.jobs import leases, service
from service.settings import get_settings
from workers.tasks import forks

_CHECK_SECONDS = 0.5
_ENDING_SECONDS = 3.0


class Lease(Protocol):
    """What has to be asked of a claim while its work runs elsewhere.

    `kind` and `argument` tell the process what to do (workers/runner.py), `name` tells people.
    """

    @property
    def kind(self) -> str: ...

    @property
    def argument(self) -> dict[str, Any]: ...

    @property
    def name(self) -> str: ...

    @property
    def claims(self) -> int: ...

    def renew(self) -> bool:
        """Extend the lease; False where it is lost."""
        ...

    def check(self) -> None:
        """Raises Cancelled or LeaseLost where the work is not wanted any more."""
        ...

    def release(self) -> None:
        """Give the work back undone."""
        ...


@dataclass(frozen=True)
class StageLease:
    """The lease of a job's stage."""

    claim: leases.Claim
    kind = "stage"

    @property
    def argument(self) -> dict[str, Any]:
        return asdict(self.claim)

    @property
    def name(self) -> str:
        return f"{self.claim.stage} of job {self.claim.job_id}"

    @property
    def claims(self) -> int:
        return self.claim.claims

    def renew(self) -> bool:
        return leases.renew(self.claim.job_id, self.claim.fence)

    def check(self) -> None:
        if service.is_abandoned(self.claim.job_id):
            raise Cancelled("every request of the job was cancelled")

    def release(self) -> None:
        leases.release(self.claim.job_id, self.claim.fence)


def run_here(claim: leases.Claim, stage: Callable[[], None]) -> None:
    """Run a light stage in this process; a thread renews the lease meanwhile."""
    done = threading.Event()
    thread = threading.Thread(target=_renew_until, args=(claim, done), name="heartbeat", daemon=True)
    thread.start()
    try:
        stage()
    finally:
        done.set()
        thread.join()


def _renew_until(claim: leases.Claim, done: threading.Event) -> None:
    # A lost lease needs no signal here: every write of the stage is fenced and will refuse.
    while not done.wait(get_settings().jobs.lease_seconds / 3):
        if not leases.renew(claim.job_id, claim.fence):
            return


def run_in_process(claim: leases.Claim, _stage: Callable[[], None]) -> None:
    """Run a heavy stage in a process of its own. Raises as `run_process` does."""
    run_process(StageLease(claim))


def run_process(lease: Lease) -> None:
    """Run work by workers.runner in a forked process, renewing the lease and watching for cancellation.

    Raises LeaseLost, Cancelled, or the JobError that the runner reported or died of.
    """
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as pipe, forks.borrowed() as process:
        try:
            try:
                process.start([lease.kind, json.dumps(lease.argument)], write_end)
            finally:
                os.close(write_end)
            _watch(lease, process)
        finally:
            process.kill()
        returncode, report = process.wait(0), pipe.read()
    _raise_outcome(lease, returncode, report)


def _watch(lease: Lease, process: forks.ForkServer) -> None:
    interval = get_settings().jobs.lease_seconds / 3
    waited = 0.0
    while True:
        try:
            process.wait(_CHECK_SECONDS)
            return
        except subprocess.TimeoutExpired:
            waited += _CHECK_SECONDS
        if waited >= interval:
            waited = 0.0
            if not lease.renew() and not _is_ending(process):
                raise LeaseLost(f"{lease.name}: the lease was taken over while it ran")
        lease.check()


def _is_ending(process: forks.ForkServer) -> bool:
    """Whether it ends by itself within moments: it has just stored its result and handed on what it held."""
    try:
        return process.wait(_ENDING_SECONDS) == 0
    except subprocess.TimeoutExpired:
        return False


def _raise_outcome(lease: Lease, returncode: int, report: str) -> None:
    if returncode == 0:
        return
    if report:
        cause = json.loads(report)
        kinds = {cls.code: cls for cls in (JobError, OutOfMemory, errors.DiskFull, LeaseLost, Cancelled)}
        raise kinds.get(cause["code"], JobError)(cause["detail"])
    if returncode == -signal.SIGKILL and lease.claims < 2:
        # The kernel's out-of-memory killer and an operator's kill look alike: one more try tells them apart.
        lease.release()
        raise LeaseLost(f"{lease.name}: its process was killed; it will be begun again")
    if returncode == -signal.SIGKILL:
        raise OutOfMemory(f"{lease.name}: killed twice, most likely for memory; retry on a larger worker")
    raise JobError(f"{lease.name}: the process ended with code {returncode} and no report; see the worker's log")
