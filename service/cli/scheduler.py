"""`lethe scheduler`: seals audit events, starts due jobs, sends messages, sweeps. Run one or more beside the API."""

import signal
import threading

import typer

from service.logs import configure_logging
from service.settings import get_settings

command = typer.Typer(help="Run the scheduler until SIGTERM.", invoke_without_command=True)


@command.callback()
def scheduler() -> None:
    """Run the scheduler until SIGTERM or Ctrl-C."""
    from service.jobs.scheduler import run

    configure_logging(get_settings().log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    heartbeat = get_settings().home / "run" / "scheduler.alive"
    heartbeat.parent.mkdir(parents=True, exist_ok=True)
    run(stop, heartbeat.touch)
