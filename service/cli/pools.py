"""Following a reference pool on the terminal: a bar where there is one, a line for each change where there is not."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from service.database import reading
from service.references.progress import view
from service.registry import pools

_PAUSE_SECONDS = 0.5


def follow(pool_id: str) -> dict[str, Any]:
    """Look at the pool until nothing is to be done on it any more; answers its last view. Draws on standard error."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[state]:<30}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=console, transient=False, disable=not console.is_terminal) as progress:
        task, last = progress.add_task("", total=1.0, state="", eta=""), ""
        while True:
            with reading() as session:
                pool = view(session, pool_id)
            state = describe(pool)
            progress.update(task, completed=pool["progress"], state=state, eta=_eta(pool["eta_seconds"]))
            if not console.is_terminal and state != last:
                sys.stderr.write(f"{state}{_eta(pool['eta_seconds'], ', ')}\n")
                sys.stderr.flush()
            last = state
            if pool["state"] not in pools.ACTIVE:
                return pool
            time.sleep(_PAUSE_SECONDS)


def describe(pool: dict[str, Any]) -> str:
    """Where it stands, in a few words."""
    done, count, workers = pool["done"], pool["count"], pool["workers"]
    if pool["state"] == "planning":
        return "waiting for a worker" if not workers else "drawing the halves"
    if pool["state"] not in pools.ACTIVE:
        return str(pool["state"])
    if done == count:
        return f"{pool['state']}, writing the tables"
    told = f"{pool['state']}, {done} of {count}"
    return f"{told}, {workers} worker{'s' * (workers != 1)}" if workers else f"{told}, waiting for a worker"


def _eta(seconds: float | None, before: str = "") -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{before}about {hours}:{minutes:02}:{rest:02} left" if hours else f"{before}about {minutes}:{rest:02} left"
