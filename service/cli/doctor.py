"""`lethe doctor`: is everything there that the service needs? One line each."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import typer

from service.cli.output import AsJson, print_json
from service.settings import get_settings

command = typer.Typer(help="Check the installation.")

_TORCH = (
    "import torch; c = torch.cuda.is_available(); "
    "print(torch.__version__, torch.cuda.get_device_name(0) if c else 'cpu')"
)


class Finding(NamedTuple):
    """One line of the answer; what is not `needed` never fails the check."""

    name: str
    ok: bool
    detail: str
    needed: bool = True


@command.command()
def doctor(as_json: AsJson = False) -> None:
    """Check home, database, broker, device and programs. Exit 1 when something needed is missing."""
    findings = [check() for check in CHECKS]
    if as_json:
        print_json({"items": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            mark = "ok" if finding.ok else ("MISSING" if finding.needed else "absent")
            typer.echo(f"{mark:<8}{finding.name:<10}{finding.detail}")
    if not all(finding.ok for finding in findings if finding.needed):
        raise typer.Exit(1)


def check_home() -> Finding:
    """The home can be written to."""
    home = get_settings().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".doctor-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return Finding("home", False, f"{home} cannot be written to ({error.strerror}); set LETHE_HOME")
    free = shutil.disk_usage(home).free / 2**30
    return Finding("home", True, f"{home}, {free:.1f} GiB free")


def check_database() -> Finding:
    """The database answers and has the newest schema."""
    from sqlalchemy.exc import SQLAlchemyError

    from service import database

    kind = get_settings().database_url.partition(":")[0]
    try:
        current = database.at_head()
    except (SQLAlchemyError, OSError) as error:
        return Finding(
            "database", False, f"{kind} cannot be reached ({type(error).__name__}); check LETHE_DATABASE_URL"
        )
    return Finding(
        "database", current, f"{kind}, " + ("newest schema" if current else "old schema: `lethe db upgrade`")
    )


def check_broker() -> Finding:
    """The broker answers; an embedded one runs only while `lethe up` does."""
    from service import queue

    settings = get_settings()
    if not settings.broker_url and not (settings.home / queue.BROKER_URL_FILE).is_file():
        return Finding("broker", True, "embedded, started by `lethe up`")
    from kombu.connection import Connection
    from kombu.exceptions import KombuError

    kind = queue.broker_url().partition(":")[0]
    try:
        with Connection(queue.broker_url(), connect_timeout=3) as connection:  # type: ignore[no-untyped-call]
            connection.ensure_connection(max_retries=0, timeout=3)
    except (KombuError, OSError) as error:
        return Finding("broker", False, f"{kind} cannot be reached ({type(error).__name__}); check LETHE_BROKER_URL")
    return Finding("broker", True, f"{kind} answers")


def check_device() -> Finding:
    """What workers would compute on; torch is asked in a process of its own."""
    wanted = get_settings().device
    if find_spec("torch") is None:
        return Finding("device", False, "torch is not installed: this machine serves the API only", needed=False)
    asked = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, check=False, timeout=120)
    if asked.returncode != 0:
        return Finding("device", False, f"torch does not load: {asked.stderr.strip().splitlines()[-1:]}")
    version, _, device = asked.stdout.strip().partition(" ")
    if wanted.startswith("cuda") and device == "cpu":
        return Finding("device", False, f"LETHE_DEVICE is {wanted}, but torch {version} sees no GPU")
    return Finding("device", True, f"{device} (LETHE_DEVICE={wanted}, torch {version})")


def check_servers() -> Finding:
    """A Redis-compatible server for the embedded broker."""
    from service.cli.stack import find_broker_server

    found = find_broker_server()
    if found is None and not get_settings().broker_url:
        detail = "no redis-server or valkey-server; queues fall back to files: install redis-server"
        return Finding("server", False, detail, needed=False)
    return Finding("server", True, str(found) if found else "not needed, LETHE_BROKER_URL is set")


CHECKS: tuple[Callable[[], Finding], ...] = (check_home, check_database, check_broker, check_device, check_servers)
