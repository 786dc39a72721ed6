"""Following a request or a job on the terminal: a bar where there is one, a line for each change where there is not."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from service.cli.client import Client
from service.errors import Forbidden, NotFound, Unavailable

_PAUSE_SECONDS = 0.5
_PATIENCE = 60


def follow(client: Client, path: str, ends: Sequence[str]) -> dict[str, Any]:
    """Poll until the request or job has a final status; draws on standard error. Answers the last object."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[state]:<22}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=console, transient=False, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=1.0, state="waiting", eta="")
        last, silent = "", 0
        while True:
            try:
                request = client.get(path)
                silent = 0
            except Unavailable:
                # A service that restarts must not end a watch that has run for hours.
                silent += 1
                if silent >= _PATIENCE:
                    raise
                time.sleep(_PAUSE_SECONDS)
                continue
            last = _draw(client, progress, task, request, last, console.is_terminal)
            if request["status"] in ends:
                return request
            time.sleep(_PAUSE_SECONDS)


def _draw(
    client: Client, progress: Progress, task: TaskID, request: dict[str, Any], last: str, is_terminal: bool
) -> str:
    state = f"{request['status']} {request['stage'] or ''}".strip()
    if request.get("waits_for"):
        state += f", waits for a {request['waits_for']}"
    progress.update(task, completed=request["progress"], state=state, eta=_eta(client, request) if is_terminal else "")
    line = f"{state} {request['progress']:.0%}"
    if not is_terminal and line != last:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    return line


def _eta(client: Client, request: dict[str, Any]) -> str:
    """What the job, or the open jobs of the request, expect, where the key may read them."""
    seconds = [request.get("eta_seconds") or 0.0]
    for target in request.get("targets", []):
        if target["job_id"] and target["outcome"] is None:
            try:
                seconds.append(client.get(f"/v1/jobs/{target['job_id']}").get("eta_seconds") or 0.0)
            except (Forbidden, NotFound):
                return ""
    minutes, rest = divmod(round(max(seconds)), 60)
    return f"about {minutes}:{rest:02} left" if max(seconds) > 0 else ""
