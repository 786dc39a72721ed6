"""What the intake benchmark runs on: one durable PostgreSQL with a database for each contender, all alike."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import Session

from benchmarks.inserts import MODEL_ID, MODEL_NAME
from benchmarks.processes import checked
from service.datasets.models import Dataset
from service.registry.models import Model, Version
from service.verification.policy import Policy
from tests.servers import postgres_server

CONTENDERS = ("lethe", "bare", "pgbench")

_LOGGED = re.compile(r"^(?P<database>\w+)\|(?P<transaction>[\d/]+)\|LOG:  (?:statement|execute [^:]*): (?P<sql>.*)")
_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK")


@dataclass(frozen=True)
class Cluster:
    """The server: its socket folder, a database URL for each contender, and an API key of Lethe's database."""

    server: str
    folder: Path
    urls: dict[str, str]
    key: str
    before: dict[str, int] = field(default_factory=dict)

    def execute(self, *statements: str) -> None:
        """Run statements as the superuser, outside any transaction."""
        with psycopg.connect(self.server, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, contender: str) -> dict[str, int]:
        """Rows that a contender has added, by table."""
        counted = _count(self.urls[contender])
        return {table: count - self.before[table] for table, count in counted.items() if count > self.before[table]}

    @contextmanager
    def statement_log(self) -> Iterator[list[tuple[str, str, str]]]:
        """Within: every statement is logged by the server; after: the list holds (database, transaction, SQL)."""
        log, found = self.folder / "log", list[tuple[str, str, str]]()
        start = log.stat().st_size
        self.execute(
            "ALTER SYSTEM SET log_line_prefix = '%d|%v|'",
            "ALTER SYSTEM SET log_statement = 'all'",
            "SELECT pg_reload_conf()",
            "SELECT pg_sleep(0.3)",
        )
        try:
            yield found
        finally:
            self.execute("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()", "SELECT pg_sleep(0.3)")
            text = log.read_bytes()[start:].decode(errors="replace")
            found += [
                (m["database"], m["transaction"], m["sql"]) for line in text.splitlines() if (m := _LOGGED.match(line))
            ]


@dataclass(frozen=True)
class Statements:
    """What the server was asked for each request. BEGIN and COMMIT are not among the statements."""

    per_request: float
    transactions_per_request: float
    most_in_transaction: int
    kinds: list[str]


def digest(logged: list[tuple[str, str, str]], database: str, requests: int) -> Statements:
    """Statements of one database, by the virtual transaction id that the server logged beside each. Pure."""
    transactions: dict[str, list[str]] = {}
    for name, transaction, sql in logged:
        if name == database and not sql.upper().startswith(_CONTROL):
            transactions.setdefault(transaction, []).append(sql)
    writing = [sqls for sqls in transactions.values() if any("INTO deletion_requests" in sql for sql in sqls)]
    total = sum(len(sqls) for sqls in transactions.values())
    kinds = [" ".join(sql.split()[:3]) for sql in max(writing, key=len, default=[])]
    most = max((len(sqls) for sqls in writing), default=0)
    return Statements(total / requests, len(transactions) / requests, most, kinds)


@contextmanager
def cluster(home: Path) -> Iterator[Cluster]:
    """A durable server with migrated databases that hold one model, and a submitter's key."""
    with postgres_server(durable=True) as server:
        folder = Path(parse_qs(urlsplit(server).query)["host"][0])
        urls = {name: server.replace("/postgres?", f"/{name}?") for name in (*CONTENDERS, "template")}
        blank = Cluster(server, folder, urls, "")
        blank.execute("CREATE DATABASE template")
        variables = {"LETHE_HOME": str(home), "LETHE_DATABASE_URL": urls["template"]}
        checked("db", "upgrade", **variables)
        key = json.loads(checked("keys", "create", "--role", "submitter", "--name", "benchmark", "--json", **variables))
        register_rows(urls["template"])
        before = _count(urls["template"])
        blank.execute(*(f"CREATE DATABASE {name} TEMPLATE template" for name in CONTENDERS))
        yield Cluster(server, folder, urls, key["key"], before)


def register_rows(url: str) -> None:
    """Register a model straight in the tables: intake reads the rows and no file, so it needs no weights."""
    now, policy = datetime.now(UTC), Policy()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with Session(engine) as session, session.begin():
        session.add(
            Dataset(
                id="dst_benchmark",
                task="image-classification",
                path="absent",
                digest="0" * 64,
                columns={},
                identifiers={"email": "email"},
                index_path="absent",
                records=0,
                subjects=0,
                created_at=now,
            )
        )
        session.flush()
        session.add(
            Model(
                id=MODEL_ID,
                name=MODEL_NAME,
                task="image-classification",
                dataset_id="dst_benchmark",
                policy=policy.model_dump(mode="json"),
                policy_digest=policy.digest(),
                serving_version_id="ver_benchmark",
                created_at=now,
            )
        )
        session.flush()
        version = Version(id="ver_benchmark", model_id=MODEL_ID, number=1, digest="0" * 64, path="absent")
        version.state, version.manifest, version.created_at = "serving", {}, now
        session.add(version)


def _count(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        counts = {}
        for (name,) in names:
            row = connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone()  # noqa: S608
            counts[str(name)] = int(row[0]) if row else 0
    return counts
