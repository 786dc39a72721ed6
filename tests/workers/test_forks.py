"""Heavy work in forked processes: what comes back, what a kill leaves behind, and that a fork is safe."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.tasks.forks import ForkServer, borrowed

CLAIM = {"job_id": "job_nobody", "stage": "unlearn", "fence": 1, "claims": 1, "owner": "test"}


def _start(server: ForkServer) -> int:
    read_end, write_end = os.pipe()
    server.start(["stage", json.dumps(CLAIM)], write_end)
    os.close(write_end)
    return read_end


def _report(read_end: int) -> dict[str, str]:
    with os.fdopen(read_end) as pipe:
        return dict(json.loads(pipe.read()))


@pytest.fixture
def server(sqlite_home: Path) -> Iterator[ForkServer]:
    """A server of this test alone."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def hanging(sqlite_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work never ends: the database is at an address that answers nobody."""
    monkeypatch.setenv("LETHE_DATABASE_URL", "postgresql://nobody@192.0.2.1/none")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_each_piece_of_work_gets_a_process_and_one_server_forks_them_all(sqlite_home: Path) -> None:
    with borrowed() as first:
        pipe = _start(first)
        assert first.wait(60) == 1
        assert _report(pipe)["detail"] == "there is no job of this id"
    with borrowed() as second:
        assert second is first
        pipe = _start(second)
        assert second.wait(60) == 1
        assert _report(pipe)["detail"] == "there is no job of this id"
        with borrowed() as third:
            assert third is not second
        assert third.free()
    first.close()
    third.close()


def test_work_is_killed_before_the_fork_too(server: ForkServer) -> None:
    os.close(_start(server))
    assert not server.free(), "it has work, though it has not forked yet"
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait(0.01)  # it is still importing
    server.kill()
    assert server.wait(0) == -signal.SIGKILL
    assert not server.free()


def test_what_was_forked_dies_with_its_server(hanging: None, server: ForkServer) -> None:
    pipe = _start(server)
    forked: list[int] = []
    while not forked:
        time.sleep(0.05)
        forked = _children(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait(30) == -signal.SIGKILL
    with os.fdopen(pipe) as reading:
        assert reading.read() == "", "the writing end is closed: nothing that held it lives"


def test_a_server_outlives_what_it_forked(hanging: None, server: ForkServer) -> None:
    os.close(_start(server))
    while not server.forked:
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(0.1)
    server.kill()
    assert server.wait(0) == -signal.SIGKILL
    assert server.free(), "the server forks on"


def test_the_server_is_safe_to_fork() -> None:
    """One thread, and nothing has asked for a GPU: a fork after either leaves the child hanging or without CUDA.

    OpenBLAS is left out: it ends its threads before a fork and starts them after it.
    """
    script = """
import os, torch
asked = []
torch.cuda.is_available = lambda: asked.append(1) or False
torch.cuda.device_count = lambda: asked.append(1) or 0
from workers import runner
runner.preload()
print(len(os.listdir("/proc/self/task")), len(asked), torch.cuda.is_initialized())
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0", "False"]
