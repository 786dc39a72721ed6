"""How soon is the service there, how much memory does it take, and how soon does a worker pick up a queued job?

Measured on the embedded defaults (SQLite, Valkey) and on Redis with PostgreSQL. The jobs are about people who are in
no data set: they run through every process of the service, and through no training.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import select

from benchmarks.inserts import MODEL_NAME
from benchmarks.intake_world import register_rows
from benchmarks.processes import checked, environment, free_port, served
from benchmarks.record import Result, Spread, Target
from service.cli.stack import Stack
from service.database import reading
from service.jobs.models import Job
from tests.e2e.world import Assets, train_digits
from tests.servers import postgres_server, queue_server

STARTS = 5
JOBS = 10
REQUESTS = 200
PATH = "/v1/deletion-requests"


@dataclass(frozen=True)
class Store:
    """Where a service keeps its state; empty URLs mean the embedded defaults."""

    name: str
    database_url: str
    broker_url: str

    def variables(self, home: Path) -> dict[str, str]:
        """LETHE_* variables of a service on this store."""
        urls = {"LETHE_DATABASE_URL": self.database_url, "LETHE_BROKER_URL": self.broker_url}
        return {"LETHE_HOME": str(home)} | {name: url for name, url in urls.items() if url}

    def url(self, home: Path) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{home / 'lethe.db'}"


@dataclass(frozen=True)
class Figures:
    """What one store has shown: seconds, MB, and seconds between a job's creation and its start."""

    api_up: Spread
    rss_mb: float
    peak_mb: float
    stack_up: float
    pick_up: Spread
    answered: Spread


def run(quick: bool = False) -> Result:
    """Measure; `quick` starts once and runs two jobs."""
    starts, jobs = (1, 2) if quick else (STARTS, JOBS)
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as name, stores() as both:
        folder = Path(name)
        assets = train_digits(folder)
        # No wait for more requests: what is measured begins when the job is there.
        (folder / "policy.toml").write_text('[batch]\nwindow = "0s"\n')
        found = {store.name: _measure(store, folder, assets, starts, jobs) for store in both}
    return _result(found, starts, jobs)


@contextmanager
def stores() -> Iterator[tuple[Store, Store]]:
    """The embedded defaults, and private servers."""
    with queue_server() as broker, postgres_server() as database:
        yield Store("embedded", "", ""), Store("Redis, PostgreSQL", database, broker)


def _measure(store: Store, folder: Path, assets: Assets, starts: int, jobs: int) -> Figures:
    home = folder / f"home-{store.name.partition(',')[0].lower()}"
    with environment(**store.variables(home)):
        checked("db", "upgrade")
        ups = [_start(folder / "api.log") for _ in range(starts)]
        began = time.perf_counter()
        with Stack(home, "127.0.0.1", free_port()) as stack:
            stack_up = time.perf_counter() - began
            options = ["--path", str(assets.model), "--task", "image-classification", "--data", str(assets.train)]
            options += ["--holdout", str(assets.holdout), "--policy", str(folder / "policy.toml")]
            checked("models", "register", "digits", *options)
            with _client(stack.url, stack.admin_key) as client:
                _ask(client, "nobody-first")  # waits until the workers have started; not counted
                answered = [_ask(client, f"nobody-{number}") for number in range(jobs)]
            pick_up = _pick_up(jobs)
        memory = _memory(store, home, folder / "api.log")
    peak = {name: round(value, 1) for name, value in memory.items()}
    return Figures(Spread.of(ups), peak["rss_mb"], peak["peak_mb"], stack_up, Spread.of(pick_up), Spread.of(answered))


def _start(log: Path) -> float:
    with served("service.main:create_app", log, "--factory") as api:
        return api.up_seconds


def _client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=30)


def _ask(client: httpx.Client, subject: str) -> float:
    """Seconds from sending a request about somebody unknown to its completion."""
    began = time.perf_counter()
    identifiers = [{"type": "subject_id", "value": subject}]
    body = {"regulation": "gdpr", "subject": {"identifiers": identifiers}, "models": ["digits"]}
    link = client.post(PATH, json=body).raise_for_status().json()["links"]["self"]
    while time.perf_counter() - began < 30:
        status = client.get(link).raise_for_status().json()["status"]
        if status == "completed":
            return time.perf_counter() - began
        if status not in ("accepted", "running"):
            raise RuntimeError(f"the request became {status}")
        time.sleep(0.01)
    raise RuntimeError("the request was not completed within 30 s")


def _pick_up(jobs: int) -> list[float]:
    """Seconds from the row of each job to a worker's claim, by the database's clock."""
    with reading() as session:
        rows = session.execute(select(Job.created_at, Job.started_at).order_by(Job.created_at)).all()
    waits = [(row.started_at - row.created_at).total_seconds() for row in rows[1:] if row.started_at is not None]
    if len(waits) != jobs:
        raise RuntimeError(f"{len(waits)} jobs were started, {jobs} were expected")
    return waits


def _memory(store: Store, home: Path, log: Path) -> dict[str, float]:
    """Resident set of a fresh API process after `REQUESTS` requests: half of them new, half reading."""
    register_rows(store.url(home))
    key = json.loads(checked("keys", "create", "--role", "admin", "--name", "memory", "--json"))["key"]
    with served("service.main:create_app", log, "--factory") as api:
        with _client(f"http://127.0.0.1:{api.port}", key) as client:
            for number in range(REQUESTS // 2):
                identifiers = [{"type": "email", "value": f"memory-{number}@example.org"}]
                body = {"regulation": "gdpr", "subject": {"identifiers": identifiers}, "models": [MODEL_NAME]}
                link = client.post(PATH, json=body).raise_for_status().json()["links"]["self"]
                client.get(PATH if number % 2 else link).raise_for_status()
        return api.memory()


def _result(found: dict[str, Figures], starts: int, jobs: int) -> Result:
    title = "Start, memory and pick-up of the service"
    result = Result("startup", title, starts, ("figure", *found))
    figures = list(found.values())
    result.rows = [
        ["API answers /healthz after, s", *(each.api_up.text(2) for each in figures)],
        [f"API memory after {REQUESTS} requests, MB", *(f"{each.rss_mb:.0f}" for each in figures)],
        ["whole stack up after, s", *(f"{each.stack_up:.2f}" for each in figures)],
        ["queued job picked up after, s", *(each.pick_up.text(3) for each in figures)],
        ["request about nobody completed after, s", *(each.answered.text(2) for each in figures)],
    ]
    result.measurements = [{"store": name, "figures": each} for name, each in found.items()]
    result.targets = [
        Target("API up, slowest start", max(each.api_up.high for each in figures), 3.0, unit="s"),
        Target("API memory", max(each.rss_mb for each in figures), 150.0, unit="MB"),
        Target("queued job picked up, slowest", max(each.pick_up.high for each in figures), 1.0, unit="s"),
    ]
    result.settings = {"starts": starts, "jobs": jobs, "requests_before_memory": REQUESTS}
    result.notes = [
        "median (lowest–highest); pick-up: from the job's row to the worker's claim, by the database's clock"
    ]
    return result
