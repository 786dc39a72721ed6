"""What the simulated forget sets are drawn from: the records of a line, its hard ones, its copies and its canaries."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.catalogue.lineage import LINEAGE
from service.errors import MethodRefused
from workers.lineage.duplicates import read_duplicates
from workers.lineage.store import open_history
from workers.planning.problems import Line
from workers.qualification.designs import CANARY, DUPLICATED, MEMORISED, RANDOM, Source, copied, hardest
from workers.references.tables import SideTable


def sources_of(line: Line, sizes: Sequence[int], table: SideTable | None) -> tuple[list[Source], list[str]]:
    """(a source for each design that the line has records for, notes on the others).

    `table`: a side of a reference pool, whose members say what was memorised; else the events of the training do.
    Duplicates are a source only where they are enough for every size: otherwise copies are to be planted.
    """
    ids = np.asarray(line.people.ids, dtype=str)
    sources, notes = [Source(RANDOM, ids, {})], []
    memorization = table.memorization(ids) if table is not None else _learned_late(line, ids)
    if isinstance(memorization, str):
        notes.append(f"{MEMORISED}: {memorization}")
    else:
        sources.append(Source(MEMORISED, hardest(ids, memorization), {}, ranked=True))
    copies = copied(line.people, read_duplicates(line.base_dir / LINEAGE))
    if len(copies) >= max(sizes):
        sources.append(Source(DUPLICATED, np.array(sorted(copies), dtype=str), copies))
    if line.canaries is not None and len(line.canaries.unspent):
        sources.append(Source(CANARY, line.canaries.unspent.ids, {}))
    else:
        notes.append(f"{CANARY}: the model holds no canaries")
    return sources, notes


def _learned_late(line: Line, ids: NDArray[np.str_]) -> NDArray[np.float64] | str:
    """Minus the mean confidence over the training (Zhao et al. 2024, arXiv 2410.16516), or why it is not known."""
    history = open_history(line.base_dir)
    if history is None:
        return "the training recorded no learning events, and no reference pool was given"
    try:
        records = history.records
    except MethodRefused as error:
        return f"the learning events cannot be used: {error.detail}"
    seen = dict(zip(records.ids.tolist(), records.events[:, 0].tolist(), strict=True))
    return np.array([-seen.get(name, np.nan) for name in ids.tolist()], dtype=np.float64)
