"""One heavy stage in a fresh process: `python -m workers.runner CLAIM_JSON FD`.

Exit code 0: the stage has stored its result under the fence. Otherwise one JSON line {code, detail} goes to the pipe
FD, and the parent records it.
"""

import json
import os
import sys

import structlog

from service.errors import LeaseLost
from service.jobs.leases import Claim
from service.logs import configure_logging
from service.settings import get_settings

log = structlog.get_logger(__name__)


def main(arguments: list[str]) -> int:
    """Run the claimed stage; returns the exit code."""
    from workers.tasks.advance import run_stage
    from workers.tasks.causes import cause_of

    claim, pipe = Claim(**json.loads(arguments[0])), int(arguments[1])
    configure_logging(get_settings().log_level)
    structlog.contextvars.bind_contextvars(job=claim.job_id, stage=claim.stage, fence=claim.fence)
    try:
        run_stage(claim)
    except Exception as error:  # the edge of this process
        cause = error if isinstance(error, LeaseLost) else cause_of(error)
        if cause.code not in ("lease_lost", "cancelled"):
            log.exception("stage.failed", code=cause.code)
        os.write(pipe, json.dumps({"code": cause.code, "detail": cause.detail}).encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
