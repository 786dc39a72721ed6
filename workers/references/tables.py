"""One table per side of a pool: what members that saw a record and members that did not say of it, on average.

Members are read one after the other (Welford's running mean and variance, 1962), so memory does not grow with K.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.errors import BadParameters, JobError, Unevaluable
from service.verification.statistics import Array, Clusters
from workers.metrics.reference_auc import Judged
from workers.modeling.problem import MemberScores
from workers.references.layout import HELD_OUT, SCORES_FILE, TRAIN, Planned, Pool, read_split, read_table
from workers.references.split import Side

LANGUAGE = "causal-lm"


@dataclass
class _Running:
    """Count, mean, sum of squared deviations and mean accuracy of N records so far."""

    count: NDArray[np.int32]
    mean: Array
    squares: Array
    correct: Array

    @classmethod
    def of(cls, size: int) -> "_Running":
        return cls(np.zeros(size, dtype=np.int32), np.zeros(size), np.zeros(size), np.zeros(size))

    def add(self, rows: NDArray[np.int64], scores: Array, correct: Array) -> None:
        self.count[rows] += 1
        step = scores - self.mean[rows]
        self.mean[rows] += step / self.count[rows]
        self.squares[rows] += step * (scores - self.mean[rows])
        self.correct[rows] += correct

    def columns(self, name: str) -> dict[str, pa.Array]:
        """NaN where there are too few members for the number."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(self.count > 0, self.mean, np.nan)
            variance = np.where(self.count > 1, self.squares / (self.count - 1), np.nan)
            correct = self.correct / self.count
        return {
            f"{name}_count": pa.array(self.count),
            f"{name}_mean": pa.array(mean),
            f"{name}_var": pa.array(variance),
            f"{name}_correct": pa.array(correct),
        }


def side_table(planned: Planned, members: Iterable[Path], task: str, per_byte: bool = False) -> pa.Table:
    """Statistics of every record over these members' score files, training records first.

    Columns record_id, set, then in_ and out_ with count, mean, var (with n - 1; NaN below two members) and correct
    (mean accuracy). Scores: logit-scaled confidence, or minus the loss per token (per UTF-8 byte with `per_byte`).
    Raises JobError for a member that was not scored on these records or has scores that are not finite.
    """
    ids = np.concatenate([planned.train, planned.held_out])
    split = {TRAIN: planned.train, HELD_OUT: planned.held_out}
    running = {"in": _Running.of(len(ids)), "out": _Running.of(len(ids))}
    for directory in members:
        table = read_table(directory / SCORES_FILE)
        start = 0
        for part, names in split.items():
            rows = _aligned(table.filter(pc.equal(table["set"], part)), names, directory)
            scores, correct = membership(rows, task, per_byte), _accuracy(rows, task)
            if not np.isfinite(scores).all():
                raise JobError(f"{directory.name}: some of its scores are not finite; lower the learning rate")
            for column, statistics in running.items():
                at = np.flatnonzero(rows[column].to_numpy())
                statistics.add(start + at, scores[at], correct[at])
            start += len(names)
    sets = [TRAIN] * len(planned.train) + [HELD_OUT] * len(planned.held_out)
    columns = {"record_id": pa.array(ids.tolist(), pa.string()), "set": pa.array(sets, pa.string())}
    return pa.table(columns | running["in"].columns("in") | running["out"].columns("out"))


def membership(table: pa.Table, task: str, per_byte: bool = False) -> Array:
    """The membership score [N] of a score table, larger = more like a member."""
    if task != LANGUAGE:
        return _numbers(table["confidence"])
    if per_byte:
        return -_numbers(table["nll"]) / np.maximum(_numbers(table["utf8_bytes"]), 1.0)
    return -_numbers(table["loss"])


def _accuracy(table: pa.Table, task: str) -> Array:
    return _numbers(table["token_accuracy" if task == LANGUAGE else "correct"])


def _numbers(column: Any) -> Array:
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64)


def _aligned(table: pa.Table, ids: NDArray[Any], directory: Path) -> pa.Table:
    """The rows of these records, in their order; rows of records that were deleted since fall away."""
    wanted = pa.array(ids.tolist(), pa.string())
    if table.num_rows == len(ids) and table["record_id"].combine_chunks().equals(wanted):
        return table
    at = pc.index_in(wanted, value_set=table["record_id"].combine_chunks())
    if at.null_count:
        raise JobError(f"{directory.name}: {at.null_count} records of the pool have no score there; train it again")
    return table.take(at)


@dataclass
class SideTable:
    """The table of one side, looked up by record; `pool` is where it was read from, None for one made in memory."""

    table: pa.Table
    pool: tuple[Pool, Side, bool] | None = field(default=None, repr=False)
    _ids: dict[str, Any] = field(default_factory=dict, repr=False)

    def rows(self, part: str, ids: Clusters) -> NDArray[np.int64]:
        """Rows of these records of a set ("train" or "held_out"). Raises Unevaluable for one that is not there."""
        if part not in self._ids:
            where = np.flatnonzero(pc.equal(self.table["set"], part).to_numpy())
            self._ids[part] = where, self.table["record_id"].take(pa.array(where)).combine_chunks()
        where, names = self._ids[part]
        found = pc.index_in(pa.array([str(name) for name in ids], pa.string()), value_set=names)
        if found.null_count:
            raise Unevaluable(f"{found.null_count} of {len(ids)} records are not in the reference pool")
        return np.asarray(where[found.to_numpy(zero_copy_only=False)], dtype=np.int64)

    def column(self, name: str) -> Array:
        """A column as float64 [rows of the table]."""
        return _numbers(self.table[name])

    def members(self) -> MemberScores:
        """What each member of the side was trained on, and its scores, one after the other from disk.

        Raises BadParameters for a table without a pool.
        """
        if self.pool is None:
            raise BadParameters("this table of references was made without its pool")
        pool, side, per_byte = self.pool
        planned, pairs = read_split(pool.directory), pool.facts.sides[side]
        chosen = [member for member in pool.facts.members if member.pair in pairs]
        ids = np.concatenate([planned.train, planned.held_out])
        unseen = np.zeros(len(planned.held_out), dtype=bool)
        inside = [np.concatenate([planned.split.trained_by(member.number), unseen]) for member in chosen]
        rows = [_aligned(read_table(pool.directory / m.path / SCORES_FILE), ids, Path(m.path)) for m in chosen]
        scores = [membership(table, pool.facts.task, per_byte) for table in rows]
        return MemberScores(np.stack(inside), np.stack(scores))

    def judged(
        self, part: str, ids: Clusters, scores: Array, subjects: Clusters, strata: Clusters | None = None
    ) -> Judged:
        """A model's scores of records [n] beside what their OUT references say, for `reference_auc`.

        `strata`: the labels of a classifier's records; None for texts.
        """
        rows = self.rows(part, ids)
        mean, variance, count = (self.column(f"out_{name}")[rows] for name in ("mean", "var", "count"))
        return Judged(np.asarray(scores, dtype=np.float64), mean, variance, count, np.asarray(subjects), strata)

    def memorization(self, ids: Clusters) -> Array:
        """Accuracy of the members that saw each training record [n] less that of those that did not.

        Feldman (2020): how much of the right answer is owed to the record itself; near 1 for one that can only be
        known by heart. NaN where no member saw the record.
        """
        rows = self.rows(TRAIN, ids)
        return self.column("in_correct")[rows] - self.column("out_correct")[rows]


def table_name(side: Side, per_byte: bool = False) -> str:
    """The file of a side's table."""
    return f"{side}-bytes.arrow" if per_byte else f"{side}.arrow"


def load_side(pool: Pool, side: Side, per_byte: bool = False) -> SideTable:
    """The table of a side. Raises BadParameters where the pool is not complete or has no such side."""
    if not pool.complete:
        raise BadParameters(f"{pool.directory}: not all references are trained; run `lethe references` again")
    name = table_name(side, per_byte)
    if name not in pool.facts.tables:
        raise BadParameters(f"{pool.directory}: {pool.facts.count} references have no {side} side; it takes 16")
    return SideTable(read_table(pool.directory / name), (pool, side, per_byte))
