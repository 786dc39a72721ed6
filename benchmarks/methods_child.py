"""One piece of work in a process forked for it, so that pieces share neither memory nor what an earlier one warmed."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from service.errors import LetheError


@dataclass(frozen=True)
class Answer:
    """What a piece of work came to: its `value`, or why it was `refused`, or how it `failed`."""

    value: Any = None
    refused: str | None = None
    failed: str | None = None

    def checked(self) -> Any:
        """The value. Raises RuntimeError where there is none."""
        if self.refused is not None or self.failed is not None:
            raise RuntimeError(self.refused or self.failed)
        return self.value


def in_child(work: Callable[[], Any]) -> Answer:
    """Do it in a fork of this process and wait. The value has to be one that pickles."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, theirs))
    process.start()
    theirs.close()
    try:
        found: Answer = ours.recv()
    except EOFError:
        process.join()
        return Answer(failed=f"the process ended with exit code {process.exitcode}")
    process.join()
    return found


def _work(work: Callable[[], Any], answer: Connection) -> None:
    try:
        answer.send(Answer(work()))
    except LetheError as error:
        answer.send(Answer(refused=error.detail))
    except Exception as error:  # noqa: BLE001 - whatever breaks is told, and the next piece of work goes on
        answer.send(Answer(failed=f"{type(error).__name__}: {error}"))


def resident() -> int:
    """Bytes of this process in memory now (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024
