"""Engine, sessions and the only commit: SQLite (WAL) and PostgreSQL.

`transaction()` is one unit of work: it commits once on leaving, or rolls everything back. `reading()` never commits.
Nothing else in the project calls commit.
"""

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import DateTime, Dialect, Engine, MetaData, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

from service.errors import Invalid
from service.settings import get_settings

if TYPE_CHECKING:
    from alembic.config import Config

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]
_MOST_VALUES = 30_000  # in one statement: SQLite takes 32,766, PostgreSQL 65,535
_SHIFTS = tuple(range(120, -1, -10))


class Base(DeclarativeBase):
    """Parent of every table. Names of constraints are fixed, so that migrations can drop them by name."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC times in and out; SQLite drops the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("naive datetime reached the database")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


_engine_lock = threading.Lock()
_id_lock = threading.Lock()
_last_id = 0


def new_id(prefix: str) -> str:
    """A sortable identifier: 48 bits of milliseconds, then 80 random bits, in Crockford base 32 (the ULID layout).

    Those of one process grow strictly, so that what it wrote within one millisecond keeps its order.
    """
    global _last_id  # noqa: PLW0603 - the whole point is to remember the last one
    fresh = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    with _id_lock:
        value = _last_id = max(fresh, _last_id + 1)
    # Two characters at a time: intake makes five ids a request, and time spent here is time under the lock of Python.
    return prefix + "_" + "".join([_PAIRS[(value >> shift) & 1023] for shift in _SHIFTS])


def get_engine() -> Engine:
    """The engine of this process, made on first use; a forked child must call `dispose` before it touches it."""
    with _engine_lock:  # a cache alone lets threads that come first at once make an engine each, and lose all but one
        return _cached_engine()


@lru_cache(maxsize=1)
def _cached_engine() -> Engine:
    settings = get_settings()
    url = settings.database_url
    # The pool waits rather than fails: the thread pool in front of it is the true limit of concurrency.
    # Values of statements stay out of error messages: they may be personal data.
    options: dict[str, Any] = {
        "pool_size": settings.api.pool_size,
        "max_overflow": 30,
        "pool_timeout": 60,
        "hide_parameters": True,
    }
    if url.startswith("sqlite"):
        settings.home.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False}, **options)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    return create_engine(url, **options)


def _configure_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # SQLAlchemy's own BEGIN below decides, not the driver
    # secure_delete overwrites what is deleted: a shredded key must not linger in a free page.
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=30000",
        "foreign_keys=ON",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    # A writer takes the lock at once: upgrading a read lock later fails with "database is locked" under load.
    readonly = connection.get_execution_options().get("readonly", False)
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")


@contextmanager
def transaction() -> Iterator[Session]:
    """One unit of work that commits on leaving and rolls back on any exception."""
    with Session(get_engine(), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def reading() -> Iterator[Session]:
    """A session for looking only; it takes no write lock and never commits."""
    with Session(get_engine().execution_options(readonly=True), expire_on_commit=False) as session:
        yield session


class Insert:
    """INSERT into these columns of a table, written out once for each dialect.

    For intake, where the work that SQLAlchemy does for every statement is most of what a request costs. Rows must name
    every column: Python-side defaults do not apply.
    """

    def __init__(self, table: Any, *columns: str) -> None:
        self._table, self._columns = table, columns
        self._written: dict[str, tuple[str, str, list[Any]]] = {}

    def run(self, cursor: Any, dialect: Dialect, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute with a cursor of the driver: one statement, or few where the rows hold very many values."""
        if dialect.name not in self._written:
            self._written[dialect.name] = self._write(dialect)
        head, group, converters = self._written[dialect.name]
        most = _MOST_VALUES // len(converters)
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            values = [
                row[name] if convert is None else convert(row[name]) for row in part for name, convert in converters
            ]
            cursor.execute(head + ", ".join([group] * len(part)), values)

    def _write(self, dialect: Dialect) -> tuple[str, str, list[Any]]:
        names = [dialect.identifier_preparer.format_column(self._table.c[name]) for name in self._columns]
        mark = "?" if dialect.paramstyle == "qmark" else "%s"
        types = [self._table.c[name].type.dialect_impl(dialect) for name in self._columns]
        converters = [(name, kind.bind_processor(dialect)) for name, kind in zip(self._columns, types, strict=True)]
        head = f"INSERT INTO {self._table.name} ({', '.join(names)}) VALUES "  # noqa: S608 - names of our own tables
        return head, f"({', '.join([mark] * len(names))})", converters


def insert_all(session: Session, *batches: tuple[Insert, Sequence[Mapping[str, Any]]]) -> None:
    """Run inserts in this order within the transaction; to PostgreSQL they travel together, in one round trip.

    Raises SQLAlchemy's errors, as its own statements do.
    """
    connection = session.connection()
    dialect, driver = connection.dialect, connection.connection.driver_connection
    assert dialect.dbapi is not None and driver is not None  # noqa: S101, PT018 - a session with a connection has both
    pipeline = driver.pipeline() if dialect.name == "postgresql" else nullcontext()
    cursor = driver.cursor()
    try:
        with pipeline:
            for insert, rows in batches:
                insert.run(cursor, dialect, rows)
    except dialect.dbapi.Error as error:
        raise DBAPIError.instance(
            "INSERT", None, error, dialect.dbapi.Error, hide_parameters=True, dialect=dialect
        ) from error
    finally:
        cursor.close()


def clock(session: Session) -> datetime:
    """The database's own time, so that leases do not depend on the clocks of workers."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now.astimezone(UTC)


def close() -> None:
    """Close the engine's connections and forget it, if there is one."""
    if _cached_engine.cache_info().currsize:
        _cached_engine().dispose()
    _cached_engine.cache_clear()


def dispose() -> None:
    """Forget the engine after a fork: its connections stay open, for they are the parent's."""
    if _cached_engine.cache_info().currsize:
        _cached_engine().dispose(close=False)
    _cached_engine.cache_clear()


def encode_cursor(*position: str | int) -> str:
    """An opaque cursor that holds the sort key of a page's last row."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type) -> list[Any]:
    """The sort key in a cursor that `encode_cursor` made; raises Invalid for anything else."""
    try:
        position = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):  # binascii.Error, UnicodeError and JSONDecodeError are ValueErrors
        position = None
    if not isinstance(position, list) or [type(part) for part in position] != list(kinds):
        raise Invalid("cursor is not one that this service gave out; start again without it", pointer="/cursor")
    return position


def migration_config() -> "Config":
    """Alembic's settings without its file, so that migrating works from any directory."""
    from alembic.config import Config

    config = Config(stdout=sys.stdout)
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    return config


def upgrade(revision: str = "head") -> None:
    """Bring the schema to a revision; safe to run in several processes at once."""
    from alembic import command

    command.upgrade(migration_config(), revision)


def at_head() -> bool:
    """Whether the schema is the newest one; raises SQLAlchemyError when the database cannot be reached."""
    from alembic.runtime.migration import MigrationContext

    with get_engine().connect().execution_options(readonly=True) as connection:
        return set(MigrationContext.configure(connection).get_current_heads()) == _heads()


@lru_cache(maxsize=1)
def _heads() -> set[str]:
    from alembic.script import ScriptDirectory

    return set(ScriptDirectory.from_config(migration_config()).get_heads())
