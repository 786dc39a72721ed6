"""What does accepting a request cost, beside the least that a web service and the database alone can do?

Three contenders write the same rows in one transaction: our API (real keys, validation, pseudonyms, encryption, audit),
a bare FastAPI endpoint with psycopg, and pgbench without any web service. They take turns on one durable PostgreSQL
(fsync and synchronous_commit on), each in its own database, and share the machine with the load generator.
"""

import re
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import Load, Tally, measure
from benchmarks.inserts import MODEL_NAME, pgbench_script
from benchmarks.intake_world import CONTENDERS, Cluster, Statements, cluster, digest
from benchmarks.processes import served
from benchmarks.record import Result, Spread, Target
from tests.servers import postgres_binaries

CONNECTIONS = (1, 8, 32, 64)
ROUNDS = 3
SECONDS = 4.0
COUNTED_REQUESTS = 100
PATH = "/v1/deletion-requests"
BODY = (
    '{"regulation": "gdpr", "subject": {"identifiers": [{"type": "email", "value": "person-%d@example.org"}]}, '
    f'"models": ["{MODEL_NAME}"]}}'
)
COLUMNS = ("connections", "Lethe /s", "bare /s", "pgbench /s", "Lethe/bare", "p50 ms", "p99 ms", "bare p99", "errors")


@dataclass
class Contest:
    """The running contenders and what they have answered so far."""

    cluster: Cluster
    folder: Path
    ports: dict[str, int]
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    accepted: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def play(self, contender: str, connections: int, seconds: float) -> Tally:
        """One turn."""
        self.cluster.execute("CHECKPOINT")  # so that nobody pays for the pages of the one before
        if contender == "pgbench":
            return self._pgbench(connections, seconds)
        return self._post(contender, connections, seconds, 0)

    def post(self, contender: str, requests: int) -> Tally:
        """So many requests on one connection."""
        return self._post(contender, 1, 0.0, requests)

    def _post(self, contender: str, connections: int, seconds: float, requests: int) -> Tally:
        headers = {"authorization": f"Bearer {self.cluster.key}"}
        first = self.sent[contender]
        load = Load(self.ports[contender], PATH, headers, BODY, connections, seconds, requests=requests, first=first)
        tally = measure(load)
        self.sent[contender] += tally.sent
        self.accepted[contender] += tally.statuses.get("202", 0)
        return tally

    def _pgbench(self, connections: int, seconds: float) -> Tally:
        script, log = self.folder / "inserts.sql", self.folder / "pgbench"
        script.write_text(pgbench_script())
        program = [str(postgres_binaries() / "pgbench"), "--no-vacuum", "--protocol", "prepared", "--log"]
        program += [
            "--log-prefix",
            str(log),
            "--file",
            str(script),
            "--time",
            str(round(seconds)),
            "--username",
            "postgres",
        ]
        program += [
            "--client",
            str(connections),
            "--jobs",
            str(min(2, connections)),
            "--host",
            str(self.cluster.folder),
        ]
        done = subprocess.run([*program, "pgbench"], capture_output=True, text=True, check=False)
        found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
        if done.returncode or not found:
            raise RuntimeError(f"pgbench failed: {done.stderr[-2000:]}")
        logs = list(self.folder.glob("pgbench.*"))
        latencies = sorted(int(line.split()[2]) / 1000 for path in logs for line in path.read_text().splitlines())
        for path in logs:
            path.unlink()
        self.accepted["pgbench"] += len(latencies)
        p50, p99 = (latencies[int(len(latencies) * share)] for share in (0.5, 0.99))
        return Tally(len(latencies), seconds, float(found[1]), p50, p99, latencies[-1], len(latencies))


def run(quick: bool = False) -> Result:
    """Measure; `quick` does one short round."""
    rounds, seconds = (1, 1.0) if quick else (ROUNDS, SECONDS)
    tallies: dict[tuple[str, int], list[Tally]] = defaultdict(list)
    with contest() as game:
        for contender in ("lethe", "bare"):
            game.post(contender, 50)  # imports on first use, prepared statements, filled pools
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for contender in CONTENDERS:
                    tallies[contender, connections].append(game.play(contender, connections, seconds))
        statements = {contender: _statements(game, contender) for contender in ("lethe", "bare")}
        rows = _same_rows(game)
    return _result(tallies, statements, rows, rounds, seconds)


@contextmanager
def contest() -> Iterator[Contest]:
    """The database, our API and the bare endpoint, running."""
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as name:
        folder = Path(name)
        with cluster(folder / "home") as postgres:
            ours = {"LETHE_HOME": str(folder / "home"), "LETHE_DATABASE_URL": postgres.urls["lethe"]}
            theirs = {"BENCHMARK_DSN": postgres.urls["bare"]}
            api = served("service.main:create_app", folder / "lethe.log", "--factory", **ours)
            with api as lethe, served("benchmarks.bare_endpoint:app", folder / "bare.log", **theirs) as bare:
                yield Contest(postgres, folder, {"lethe": lethe.port, "bare": bare.port})


def _statements(game: Contest, contender: str) -> Statements:
    with game.cluster.statement_log() as logged:
        game.post(contender, COUNTED_REQUESTS)
    return digest(logged, contender, COUNTED_REQUESTS)


def _same_rows(game: Contest) -> dict[str, float]:
    """Rows for each request by table. Raises RuntimeError when contenders did different work, or lost a request."""
    shares = {}
    for contender in CONTENDERS:
        rows = game.cluster.rows(contender)
        requests = rows.get("deletion_requests", 0)
        if requests != game.accepted[contender]:
            raise RuntimeError(f"{contender} answered 202 to {game.accepted[contender]} requests and kept {requests}")
        shares[contender] = {table: count / requests for table, count in sorted(rows.items())}
    if len({tuple(share.items()) for share in shares.values()}) != 1:
        raise RuntimeError(f"the contenders write different rows, so their rates cannot be compared: {shares}")
    return shares["lethe"]


def _result(
    tallies: dict[tuple[str, int], list[Tally]],
    statements: dict[str, Statements],
    rows: dict[str, float],
    rounds: int,
    seconds: float,
) -> Result:
    result = Result("intake", "Intake on PostgreSQL: requests accepted in a second", rounds, COLUMNS)
    ratios, worst_p99, errors = {}, {}, 0
    for connections in CONNECTIONS:
        of = {contender: tallies[contender, connections] for contender in CONTENDERS}
        rate = {contender: Spread.of([tally.per_second for tally in of[contender]]) for contender in CONTENDERS}
        pairs = zip(of["lethe"], of["bare"], strict=True)
        ratios[connections] = Spread.of([ours.per_second / bare.per_second for ours, bare in pairs])
        p99 = {contender: Spread.of([tally.p99 for tally in of[contender]]) for contender in CONTENDERS}
        p50 = statistics.median(tally.p50 for tally in of["lethe"])
        failed = sum(tally.errors for tally in (*of["lethe"], *of["bare"]))
        worst_p99[connections], errors = p99["lethe"].high, errors + failed
        cells = [f"{connections}", *(rate[contender].text() for contender in CONTENDERS), ratios[connections].text(2)]
        result.rows.append([*cells, f"{p50:.1f}", p99["lethe"].text(1), f"{p99['bare'].median:.1f}", str(failed)])
        result.measurements += [
            {
                "connections": connections,
                "contender": contender,
                "per_second": rate[contender],
                "p99_ms": p99[contender],
            }
            | {"rounds": of[contender]}
            for contender in CONTENDERS
        ]
        result.measurements.append({"connections": connections, "ratio_to_bare": ratios[connections]})
    counted = statements["lethe"]
    result.measurements += [{"contender": name, "statements": found} for name, found in statements.items()]
    result.settings = {"seconds": seconds, "postgresql": "fsync on, synchronous_commit on", "rows_per_request": rows}
    result.targets = [
        Target("rate beside the bare endpoint at 8 connections", ratios[8].median, 0.40, at_most=False),
        Target("answers other than 202, at any", errors, 0),
        Target("p99 at 32 connections, worst round", worst_p99[32], 250, unit="ms"),
        Target("statements in a request's transaction", counted.most_in_transaction, 8),
        Target("statements per request, key and model look-ups included", round(counted.per_request, 2), 8),
    ]
    result.notes = [
        f"statements in the transaction: {', '.join(counted.kinds)}; {counted.transactions_per_request:.2f} "
        "transactions per request, counted in the server's log",
        f"rows written per request, the same for all three: {', '.join(f'{n:g} {table}' for table, n in rows.items())}",
        "median (lowest–highest) of the rounds; load generator, servers and database share the machine",
    ]
    return result
