"""Keeping a lease while a stage runs, and stopping the stage when the lease or its reason is gone.

Light stages run in this process beside a heartbeat thread. Heavy stages run in a fresh subprocess: its memory returns
to the machine, an out-of-memory kill hits only it, and it can be cancelled whatever pool Celery uses.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict

from service import errors
from service.errors import Cancelled, JobError, LeaseLost, OutOfMemory
from service.jobs import leases, service
from service.settings import get_settings

_CHECK_SECONDS = 0.5


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
    """Run a heavy stage by `python -m workers.runner`, renewing the lease and watching for cancellation.

    Raises LeaseLost, Cancelled, or the JobError that the runner reported or died of.
    """
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "workers.runner", json.dumps(asdict(claim)), str(write_end)]
    process = subprocess.Popen(
        command,
        pass_fds=(write_end,),
        start_new_session=True,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - one async-signal-safe call
    )
    os.close(write_end)
    try:
        _watch(claim, process)
    finally:
        _kill(process)
        with os.fdopen(read_end) as pipe:
            report = pipe.read()
    _raise_outcome(claim, process.returncode, report)


def _watch(claim: leases.Claim, process: subprocess.Popen[bytes]) -> None:
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
            if not leases.renew(claim.job_id, claim.fence):
                raise LeaseLost(f"job {claim.job_id}: the lease was taken over while {claim.stage} ran")
        if service.is_abandoned(claim.job_id):
            raise Cancelled("every request of the job was cancelled")


def _raise_outcome(claim: leases.Claim, returncode: int, report: str) -> None:
    if returncode == 0:
        return
    if report:
        cause = json.loads(report)
        kinds = {cls.code: cls for cls in (JobError, OutOfMemory, errors.DiskFull, LeaseLost, Cancelled)}
        raise kinds.get(cause["code"], JobError)(cause["detail"])
    if returncode == -signal.SIGKILL and claim.claims < 2:
        # The kernel's out-of-memory killer and an operator's kill look alike: one more try tells them apart.
        leases.release(claim.job_id, claim.fence)
        raise LeaseLost(f"job {claim.job_id}: the process of {claim.stage} was killed; the stage will be begun again")
    if returncode == -signal.SIGKILL:
        raise OutOfMemory(
            f"the process of {claim.stage} was killed twice, most likely for memory; retry on a larger worker"
        )
    raise JobError(f"the process of {claim.stage} ended with code {returncode} and no report; see the worker's log")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: when the Celery child is killed, its runner must not train on as a ghost.
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6", use_errno=True).prctl(1, signal.SIGKILL)
