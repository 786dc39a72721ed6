"""Which references of a model's pool hold deleted records: from its plan on disk, for a process without torch."""

from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from service.database import reading
from service.errors import LetheError
from service.registry import pools
from service.registry.models import Model


def affected_by(model: Model, record_ids: Collection[str], *, reserve: bool) -> pools.Affected:
    """A question to the folder of a pool: numbers of its members that were trained on these records.

    None where the pool knows none of the records, [] where it only scores them or has no plan yet. `reserve`: the
    held-out records are part of the data, so that these ids may be among them. The plan of the model's present pool is
    read here, so that the transaction which asks is short; a plan never changes but by losing records. The question
    raises BadParameters for a plan that cannot be read.
    """
    from workers.references.layout import SPLIT_FILE, read_split

    @lru_cache(maxsize=4)
    def of_plan(folder: Path) -> list[int] | None:
        planned = read_split(folder)
        return planned.members_with(record_ids) if planned.holds(record_ids, record_ids if reserve else ()) else None

    def affected(folder: Path) -> list[int] | None:
        return of_plan(folder) if (folder / SPLIT_FILE).is_file() else []

    with reading() as session:
        pool = pools.pool_of(session, model)
    if pool is not None:
        with suppress(LetheError):  # which the transaction meets again, and answers
            affected(pool.path)
    return affected
