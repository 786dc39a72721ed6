"""Fresh processes for heavy work, forked by a server that has imported the heavy libraries once (workers/runner.py).

Importing torch and transformers takes seconds of a core; a fork takes milliseconds, and gives as fresh a process: its
memory returns to the machine, and a kill hits only it. A server forks one process at a time: whoever wants two gets two
servers.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from threading import Lock

_LAST_SECONDS = 60.0
_NO_ANSWER = 1


class ForkServer:
    """The client's side of one server, which is started when this is made, and of the one process that it has forked.

    `wait` and `kill` are about the forked process, as those of subprocess.Popen.
    """

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        self._busy = False
        self._pid: int | None = None
        self._code: int | None = None
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "workers.runner", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one async-signal-safe call
            )

    @property
    def pid(self) -> int:
        """The server's."""
        return self._server.pid

    def start(self, arguments: list[str], pipe: int) -> None:
        """Ask for a process that calls `workers.runner.main` with these and a copy of the pipe's writing end."""
        self._busy, self._pid, self._code = True, None, None
        try:
            socket.send_fds(self._channel, [json.dumps(arguments).encode() + b"\n"], [pipe])
        except BrokenPipeError:
            self._code = self._server.wait() or _NO_ANSWER

    def wait(self, timeout: float) -> int:
        """Its exit code, -N where signal N ended it, or that of the server where that ended first.

        Raises subprocess.TimeoutExpired after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self._code is None:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._channel], [], [], left)[0]:
                raise subprocess.TimeoutExpired("workers.runner", timeout)
            line = _line(self._channel)
            if not line:
                self._kill_group()
                self._code = self._server.wait() or _NO_ANSWER
            elif self._pid is None:
                self._pid = int(line)
            else:
                self._code = int(line)
        return self._code

    @property
    def forked(self) -> bool:
        """Whether the process is known to have been forked; `wait` learns of it."""
        return self._pid is not None

    def kill(self) -> None:
        """Kill it with all that it has started, if it runs, and wait until it is gone."""
        if not self._busy:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
            return
        if self._pid is None:
            self._server.kill()  # it has not come to the fork yet
        self._kill_group()
        # One that hangs in the kernel outlives this; its server is not asked again.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(_LAST_SECONDS)

    def _kill_group(self) -> None:
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)

    def free(self) -> bool:
        """Whether the server lives and can be asked again."""
        return self._server.poll() is None and (not self._busy or self._code is not None)

    def close(self) -> None:
        """End the server."""
        self._channel.close()
        self._server.kill()
        self._server.wait()


_idle: list[ForkServer] = []
_lock = Lock()


@contextlib.contextmanager
def borrowed() -> Iterator[ForkServer]:
    """A server for one piece of work: one that has nothing to do, or a new one; it is kept for the next."""
    with _lock:
        server = _idle.pop() if _idle else None
    if server is not None and not server.free():
        server.close()
        server = None
    server = server or ForkServer()
    try:
        yield server
    finally:
        if server.free():
            with _lock:
                _idle.append(server)
        else:
            server.close()


def _line(channel: socket.socket) -> bytes:
    """The next line, without its end; empty where the other side is gone."""
    got = b""
    while not got.endswith(b"\n"):
        try:
            part = channel.recv(1)
        except ConnectionResetError:
            return b""
        if not part:
            return b""
        got += part
    return got[:-1]


def die_with_parent() -> None:
    """PR_SET_PDEATHSIG: when the Celery child is killed, its heavy work must not train on as a ghost."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6", use_errno=True).prctl(1, signal.SIGKILL)
