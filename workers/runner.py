"""Heavy work in a fresh process: `python -m workers.runner KIND CLAIM_JSON FD`.

KIND is "stage" (of a job) or "references" (of a pool). Exit code 0: the result is stored under the fence. Otherwise
one JSON line {code, detail} goes to the pipe FD, and the parent records it.
"""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from service.errors import LeaseLost
from service.logs import configure_logging
from service.settings import get_settings

log = structlog.get_logger(__name__)


def main(arguments: list[str]) -> int:
    """Do the claimed work; returns the exit code."""
    from workers.tasks.causes import cause_of

    claim, pipe = json.loads(arguments[1]), int(arguments[2])
    configure_logging(get_settings().log_level)
    try:
        _work(arguments[0], claim)()
    except Exception as error:  # the edge of this process
        cause = error if isinstance(error, LeaseLost) else cause_of(error)
        if cause.code not in ("lease_lost", "cancelled"):
            log.exception("stage.failed", code=cause.code)
        os.write(pipe, json.dumps({"code": cause.code, "detail": cause.detail}).encode())
        return 1
    return 0


def _work(kind: str, claim: dict[str, Any]) -> Callable[[], None]:
    if kind == "references":
        from service.references.leases import Claim as PoolClaim
        from workers.tasks.reference_work import run

        structlog.contextvars.bind_contextvars(pool=claim["pool_id"], task=claim["task"], fence=claim["fence"])
        return partial(run, PoolClaim(**claim))
    from service.jobs.leases import Claim
    from workers.tasks.advance import run_stage

    structlog.contextvars.bind_contextvars(job=claim["job_id"], stage=claim["stage"], fence=claim["fence"])
    return partial(run_stage, Claim(**claim))


def leave(code: int) -> None:
    """End the process without taking its libraries down one by one: torch alone takes a second for that."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
