"""Heavy work: a server that imports the libraries once and forks for each piece (client: workers/tasks/forks.py).

    python -m workers.runner SOCKET_FD

A request is one JSON line [KIND, CLAIM_JSON] with the pipe for the report beside it (SCM_RIGHTS); the answers are the
pid, and, when that has ended, its exit code. KIND is "stage" (of a job) or "references" (of a pool). Exit code 0: the
result is stored under the fence. Otherwise one JSON line {code, detail} goes to the pipe, and the client records it.

The server runs no operation of torch itself (a fork after one hangs in OpenMP) and never touches a GPU (a fork after
that cannot use it).
"""

import contextlib
import gc
import json
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import structlog

from service.errors import LeaseLost
from service.logs import configure_logging
from service.settings import get_settings
from workers.tasks.forks import die_with_parent

log = structlog.get_logger(__name__)

_PRELOADED = (
    "workers.tasks.unlearn",
    "workers.tasks.verify",
    "workers.tasks.reference_work",
    "torch",
    "transformers",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.image_processing_auto",
)
_LONGEST = 65_536


def main(kind: str, claim: str, pipe: int) -> int:
    """Do the claimed work; returns the exit code."""
    from workers.tasks.causes import cause_of

    configure_logging(get_settings().log_level)
    try:
        _work(kind, json.loads(claim))()
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


def preload() -> None:
    """Import what heavy work needs, and put it out of the garbage collector's sight, so that forks share its pages.

    Which code and packages these are is noted now: an update on disk does not change what has been imported.
    """
    from workers.modeling.code_version import code_version, package_versions

    for name in _PRELOADED:
        import_module(name)
    code_version()
    package_versions()
    gc.collect()
    gc.freeze()


def serve(channel: socket.socket) -> None:
    """Fork for each request until the client is gone."""
    preload()
    while True:
        message, pipes, _, _ = socket.recv_fds(channel, _LONGEST, 1)
        if not message:
            return
        while not message.endswith(b"\n"):
            message += channel.recv(_LONGEST)
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            channel.close()
            kind, claim = json.loads(message)
            _become(server, kind, claim, pipes[0])
        os.close(pipes[0])
        _lead_group(pid)
        channel.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        channel.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _lead_group(pid: int) -> None:
    # Both sides do it: whoever comes first, the group is there before anybody can want to kill it.
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)


def _become(server: int, kind: str, claim: str, pipe: int) -> None:
    """What the forked process does; it ends without taking its libraries down, which costs torch a second."""
    code = 1
    try:
        _lead_group(0)
        die_with_parent()
        if os.getppid() != server:
            return  # it died before the line above
        code = main(kind, claim, pipe)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
