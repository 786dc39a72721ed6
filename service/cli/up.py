"""`lethe up`: broker, database, API, scheduler and workers as child processes of one supervisor, until Ctrl-C."""

import signal
import threading
from pathlib import Path

import typer

from service.settings import get_settings

command = typer.Typer(help="Serve everything on this machine until Ctrl-C.", invoke_without_command=True)


@command.callback()
def up(
    host: str = typer.Option("", help="address of the API; default from LETHE_API__HOST"),
    port: int = typer.Option(0, help="port of the API; default from LETHE_API__PORT"),
    workers: int = typer.Option(1, min=1, help="worker processes for the gpu queue"),
) -> None:
    """Serve everything on this machine until Ctrl-C."""
    from service.cli.stack import Stack

    settings = get_settings()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Stack(Path(settings.home), host or settings.api.host, port or settings.api.port, workers=workers) as stack:
        typer.echo(f"Lethe is up at {stack.url}  (admin key in {stack.key_file}, logs in {stack.logs})")
        while not stop.wait(0.5):
            stack.mend()
    typer.echo("Lethe is down.")
