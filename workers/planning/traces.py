"""What the training of a model line left behind that evidence can rest on, and who else says what was forgotten."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from service.catalogue.lineage import LINEAGE
from service.errors import BadModel, LetheError
from service.verification.schema import Traces
from workers.lineage.canaries import companions, newly_spent, read_canaries
from workers.lineage.duplicates import near_duplicates_of, read_duplicates
from workers.lineage.facts import LOG
from workers.lineage.opposites import opposites
from workers.lineage.reserve import reserve_digest
from workers.lineage.store import ModelHistory, open_history
from workers.metrics.difficulty_baseline import Difficulty
from workers.modeling.records import MemoryRecords
from workers.modeling.training_record import TrainingRecord, read_record
from workers.planning.problems import Line

MOST_OUTSIDE = 5000
"""Canaries outside that are scored: more would sharpen the comparison no further."""
MOST_KEPT = 1000
"""Canaries that stay which are scored."""


def traces_of(line: Line, candidate_dir: Path) -> Traces:
    """What is left of the original's training, and whether the candidate carries it on. Raises nothing."""
    record, made = _record(line.base_dir), _record(candidate_dir)
    facts = record.lineage if record is not None else None
    log = _log(line.base_dir, record)
    return Traces(
        record=record is not None,
        log=log,
        canaries=facts.canaries if facts is not None else 0,
        canaries_lost=facts is not None and facts.canaries > 0 and line.canaries is None,
        reserved=len(line.reserved),
        held_out=_held_out(line),
        carried_on=made is not None and made.lineage is not None if log == "kept" else None,
    )


@dataclass(frozen=True)
class Companions:
    """Canaries that a candidate's making deleted, those of the same make outside every training, those that it was to
    keep, each one's kind by record id, and of each planted one the canary outside that it is put against."""

    deleted: MemoryRecords
    outside: MemoryRecords
    kept: MemoryRecords
    kinds: dict[str, str]
    opposites: dict[str, str]


def companions_of(line: Line, candidate_dir: Path) -> Companions | None:
    """The canaries that were deleted between the original and the candidate; None where there are none.

    Nor where they are not those that were due, among those that the original's record committed to. Raises nothing.
    """
    made, before = _record(candidate_dir), line.canaries
    count = made.unlearning.companions if made is not None and made.unlearning is not None else 0
    try:
        spent = newly_spent(before, read_canaries(candidate_dir / LINEAGE))
    except BadModel:
        return None
    # Which ones were due was drawn by the sealed nonce: a candidate that names others hides some.
    if before is None or spent is None or not count or spent.ids.tolist() != companions(before, count):
        return None
    kinds = dict(zip(before.records.ids.tolist(), before.kinds.tolist(), strict=True))
    outside = before.outside
    outside = outside.subset(list(range(min(len(outside), MOST_OUTSIDE))))
    stay = np.flatnonzero(~np.isin(before.unspent.ids, spent.ids))[:MOST_KEPT]
    return Companions(spent, outside, before.unspent.subset(stay.tolist()), kinds, opposites(before))


def difficulty_of(line: Line, forget_ids: Iterable[str]) -> Difficulty | None:
    """How sure the original's training grew of the people's records; None where it left no learning events."""
    history = open_history(line.base_dir)
    try:
        table = history.records if history is not None else None
    except (LetheError, OSError):
        return None
    if table is None:
        return None
    known = dict(zip(table.ids.tolist(), table.events[:, 0].tolist(), strict=True))
    ids, subjects = np.asarray(line.people.ids).tolist(), np.asarray(line.people.subjects)
    rows = np.array([at for at, name in enumerate(ids) if name in known], dtype=np.int64)
    values = np.array([known[ids[at]] for at in rows.tolist()], dtype=np.float64)
    gone = np.isin(np.array(ids, dtype=str)[rows], np.array(sorted(forget_ids), dtype=str))
    return Difficulty(values[gone], subjects[rows][gone], values[~gone], subjects[rows][~gone])


def trained_tokens(line: Line) -> float | None:
    """Tokens that training the line again takes, over all epochs; None where no record says so."""
    record = _record(line.base_dir)
    if record is None or record.recipe is None or record.tokens is None:
        return None
    return float(record.tokens) * record.recipe.training.epochs


def classes_forgotten(line: Line, forget_ids: Iterable[str]) -> frozenset[Any]:
    """Labels that forgotten records have and no retained one, whatever is scored of these."""
    if "label" not in line.people.roles:
        return frozenset()
    gone = np.isin(np.asarray(line.people.ids), np.array(sorted(forget_ids), dtype=str))
    labels = np.asarray(line.people.column("label"))
    return frozenset(np.setdiff1d(labels[gone], labels[~gone]).tolist())


def retained_copies(line: Line, forget_ids: Iterable[str]) -> int | None:
    """How many retained records are exact or near copies of forgotten ones; None where there is no table of copies."""
    try:
        table = read_duplicates(line.base_dir / LINEAGE)
    except BadModel:
        return None
    if table is None:
        return None
    copies = near_duplicates_of(table, forget_ids)
    return int(np.isin(np.asarray(line.people.ids), np.array(sorted(copies), dtype=str)).sum())


def _record(directory: Path) -> TrainingRecord | None:
    try:
        return read_record(directory)
    except BadModel:
        return None


def _log(directory: Path, record: TrainingRecord | None) -> Literal["kept", "lost", "none"]:
    """A lineage that is not the one that the record names is as good as none."""
    if record is None or record.lineage is None:
        return "none"
    history = ModelHistory(directory)
    try:
        return "kept" if LOG in history.facts.files and (history.folder / LOG).is_file() else "lost"
    except (LetheError, OSError):
        return "lost"


def _held_out(line: Line) -> Literal["reserve", "given", "none"]:
    if line.held_out is None or not len(line.held_out):
        return "none"
    return "reserve" if line.holdout_digest == reserve_digest(line.reserved) else "given"
