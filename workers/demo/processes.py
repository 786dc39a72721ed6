"""Processes of the demo: `lethe` commands as a user would type them, and the two inference servers."""

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from service.cli.stack import Child
from service.errors import JobError, Unavailable
from service.settings import get_settings

_KEPT = ("LETHE_DEVICE",)
_START_SECONDS = 60.0


@contextmanager
def embedded_defaults(home: Path) -> Iterator[None]:
    """Embedded broker and database in `home` for this process and its children, whatever the caller has set."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("LETHE_") and name not in _KEPT]:
        del os.environ[name]
    os.environ.update({"LETHE_HOME": str(home), "LETHE_LOG_LEVEL": "WARNING"})
    # One thread a process: several of them share the cores, and the same weights come out on every run.
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    get_settings.cache_clear()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        get_settings.cache_clear()


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Command:
    """A `lethe` command in its own process; it goes when this process goes."""

    def __init__(self, name: str, arguments: Sequence[str], logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._name, self._log = f"lethe {' '.join(arguments[:2])}", logs / f"{name}.log"
        line = [sys.executable, "-m", "service.cli.main", *arguments]
        self._child = Child(name, line, self._log, dict(os.environ))
        self._started = time.monotonic()
        self.seconds = 0.0

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        if self._child.process.poll() is None:
            return True
        self.seconds = self.seconds or time.monotonic() - self._started
        return False

    @property
    def succeeded(self) -> bool:
        """Wait for it; whether it ended with 0."""
        while self.running:
            time.sleep(0.02)
        return self._child.process.returncode == 0

    def check(self) -> str:
        """Wait for it and return what it printed. Raises JobError with its last line when it failed."""
        if not self.succeeded:
            raise JobError(f"{self._name} failed: {self.last_line()} (all of it in {self._log})")
        return self._log.read_text("utf-8", "replace")

    def last_line(self) -> str:
        """What it said last."""
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"

    def last_line_when_done(self) -> str:
        """Wait for it, then what it said last."""
        return self.last_line() if self.succeeded else f"FAILED: {self.last_line()}"

    def stop(self) -> None:
        """End it."""
        self._child.stop()


class ModelServer:
    """`lethe models serve NAME` on a free port."""

    def __init__(self, name: str, logs: Path) -> None:
        port = free_port()
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        self._command = Command(f"serve-{name}", ["models", "serve", name, "--port", str(port)], logs)
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def wait(self) -> None:
        """Until it answers. Raises Unavailable when it does not."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._command.running:
            with suppress(httpx.HTTPError):
                if self.client.get("/healthz").is_success:
                    return
            time.sleep(0.05)
        raise Unavailable(f"the server of {self.name} does not answer: {self._command.last_line()}")

    def version(self) -> int:
        """The version that answers now."""
        return int(self.client.get("/version").headers["lethe-model-version"])

    def wait_for(self, number: int) -> None:
        """Until this version answers; the server finds out by itself. Raises Unavailable when it does not."""
        deadline = time.monotonic() + _START_SECONDS
        while self.version() != number:
            if time.monotonic() > deadline:
                raise Unavailable(f"the server of {self.name} does not switch to version {number}")
            time.sleep(0.05)

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """Ask. Raises Unavailable for an error, and when header and body differ on the version."""
        answer = self.client.post(path, json=body)
        if not answer.is_success:
            raise Unavailable(f"the server of {self.name} answered {answer.status_code}: {answer.text[:200]}")
        told: dict[str, object] = answer.json()
        if str(told["version"]) != answer.headers["lethe-model-version"]:
            raise Unavailable(f"the server of {self.name} disagrees with itself about its version")
        return told

    def stop(self) -> None:
        """End it."""
        self.client.close()
        self._command.stop()
