"""Which references of a pool hold deleted records: from its plan on disk, for a process without torch."""

from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path


def affected_by(record_ids: Collection[str], *, reserve: bool) -> Callable[[Path], list[int] | None]:
    """A question to the folder of a pool: numbers of its members that were trained on these records.

    None where the pool knows none of the records, [] where it only scores them or has no plan yet. `reserve`: the
    held-out records are part of the data, so that these ids may be among them. Answers are remembered, since the plan
    of a pool never changes but by losing records. Raises BadParameters for a plan that cannot be read.
    """
    from workers.references.layout import SPLIT_FILE, read_split

    @lru_cache(maxsize=4)
    def of_plan(folder: Path) -> list[int] | None:
        planned = read_split(folder)
        return planned.members_with(record_ids) if planned.holds(record_ids, record_ids if reserve else ()) else None

    return lambda folder: of_plan(folder) if (folder / SPLIT_FILE).is_file() else []
