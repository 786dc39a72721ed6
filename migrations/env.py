"""What Alembic runs: the project's own engine and the tables of every domain."""

from alembic import context
from sqlalchemy import Connection, text

import service.audit.models
import service.auth.models
import service.datasets.models
import service.deletion.models
import service.jobs.models
import service.notify.models
import service.registry.models
import service.subjects.models  # noqa: F401 - importing a module registers its tables
from service.database import Base, get_engine

# Any number will do, as long as every process that migrates this database takes the same.
_LOCK = 7_205_421


def _migrate(connection: Connection) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=is_sqlite,
        transaction_per_migration=False,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("lethe migrates a live database only; leave out --sql")

with get_engine().begin() as connection:
    _migrate(connection)
