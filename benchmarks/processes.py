"""Starting what is measured: servers on loopback ports, and commands whose time and memory the kernel reports."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service import database
from service.settings import get_settings

ROOT = Path(__file__).parent.parent
START_SECONDS = 30.0
LIMIT_SECONDS = 300.0


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """For this process and its children: these variables, and no other LETHE_* ones, until the end of the block."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("LETHE_")]:
        del os.environ[name]
    os.environ.update(values)
    get_settings.cache_clear()
    database.close()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        get_settings.cache_clear()
        database.close()


@dataclass(frozen=True)
class Served:
    """A running HTTP server. `up_seconds`: from starting the process to the first answer."""

    port: int
    pid: int
    up_seconds: float

    def memory(self) -> dict[str, float]:
        """Resident set and its peak, in MB (10**6 bytes)."""
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        values = {line.partition(":")[0]: line.split()[1] for line in status if line.startswith(("VmRSS", "VmHWM"))}
        return {"rss_mb": int(values["VmRSS"]) * 1024 / 1e6, "peak_mb": int(values["VmHWM"]) * 1024 / 1e6}


@contextmanager
def served(application: str, log: Path, *flags: str, path: str = "/healthz", **variables: str) -> Iterator[Served]:
    """One uvicorn process with the flags that `lethe up` uses; yields once `path` has answered 200."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, *flags, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning"]
    with log.open("ab") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        _wait_until_up(process, port, path, log)
        yield Served(port, process.pid, time.perf_counter() - began)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port, path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.005)


def _answers(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
            return stream.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@dataclass(frozen=True)
class Run:
    """A finished command: wall and CPU seconds and the peak resident set of it and the children it waited for."""

    code: int
    wall: float
    cpu: float
    peak_mb: float
    output: str

    def document(self) -> dict[str, Any]:
        """The JSON object that it printed."""
        parsed: dict[str, Any] = json.loads(self.output)
        return parsed


def timed(command: Sequence[str], folder: Path, accept: Sequence[int] = (0,)) -> Run:
    """Run a command to its end and ask the kernel what it cost (wait4).

    Raises RuntimeError for another exit code; after `LIMIT_SECONDS` the command is killed.
    """
    output, errors = folder / "stdout", folder / "stderr"
    with output.open("wb") as out, errors.open("wb") as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        guard = threading.Timer(LIMIT_SECONDS, process.kill)
        guard.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        guard.cancel()
    process.returncode = code = os.waitstatus_to_exitcode(status)
    if code not in accept:
        raise RuntimeError(f"{' '.join(command)} exited {code}:\n{errors.read_text(errors='replace')[-3000:]}")
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6
    return Run(code, wall, cpu, peak, output.read_text())


def lethe(*arguments: str) -> list[str]:
    """The command line of `lethe`."""
    return [sys.executable, "-m", "service.cli.main", *arguments]


def checked(*arguments: str, **variables: str) -> str:
    """Run `lethe` as part of a set-up; returns its standard output. Raises RuntimeError when it fails."""
    done = subprocess.run(
        lethe(*arguments), cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"lethe {' '.join(arguments[:2])} exited {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
