"""The order log: which records were in which micro-batch of a run, with everything that decided its update.

One row a micro-batch, after the write-ahead log of arXiv 2508.12220 (ordered record ids, seed, learning rate, step and
accumulation boundary per micro-batch).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from service.errors import MethodRefused
from workers.modeling.observing import MicroBatch

_SCALARS: dict[str, Any] = {
    "step": np.int32,
    "epoch": np.int32,
    "micro": np.int32,
    "seed": np.int64,
    "rate": np.float64,
    "weight": np.float64,
    "boundary": np.bool_,
}


@dataclass(frozen=True)
class OrderLog:
    """M micro-batches. `columns` holds the scalars of `MicroBatch` [M]; batch m has `rows[starts[m]:starts[m + 1]]`."""

    columns: dict[str, NDArray[Any]]
    rows: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def steps(self) -> int:
        """Optimiser steps that the log covers from 0 without a gap; 0 for an empty or broken one."""
        steps = self.columns["step"][self.columns["boundary"]]
        return len(steps) if np.array_equal(steps, np.arange(len(steps))) else 0

    def batches(self, begin: int = 0) -> Iterator[MicroBatch]:
        """The micro-batches of all steps from `begin` on."""
        for at in range(int(np.searchsorted(self.columns["step"], begin)), len(self)):
            scalars = {name: values[at].item() for name, values in self.columns.items()}
            yield MicroBatch(rows=self.rows[self.starts[at] : self.starts[at + 1]].tolist(), **scalars)

    def first_steps(self, count: int) -> NDArray[np.int32]:
        """The first step [count] in which each record was in a batch; `steps` for one that never was."""
        first = np.full(count, self.steps, dtype=np.int32)
        steps = np.repeat(self.columns["step"], np.diff(self.starts)).astype(np.int32)
        np.minimum.at(first, self.rows, steps)
        return first

    def exposures(self, count: int) -> NDArray[np.int32]:
        """How often each of `count` records was in a batch."""
        return np.bincount(self.rows, minlength=count).astype(np.int32)

    def renumbered(self, places: NDArray[np.int64]) -> "OrderLog":
        """The same micro-batches with row r as `places[r]`; rows with a negative place are left out of theirs."""
        moved = places[self.rows]
        kept = moved >= 0
        sizes = np.add.reduceat(np.append(kept, False), self.starts[:-1]) if len(self) else np.zeros(0)
        # reduceat answers the single element at the start of an empty slice instead of 0.
        sizes = np.where(np.diff(self.starts) > 0, sizes, 0)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return replace(self, rows=moved[kept].astype(np.int32), starts=starts)


@dataclass
class LogWriter:
    """Collects micro-batches in memory: four bytes a record and some forty a batch."""

    _columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _SCALARS})
    _rows: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, batch: MicroBatch) -> None:
        """Note one micro-batch."""
        for name, values in self._columns.items():
            values.append(getattr(batch, name))
        self._rows.append(np.asarray(batch.rows, dtype=np.int32))

    def log(self) -> OrderLog:
        """What has been collected."""
        columns = {name: np.asarray(values, dtype=_SCALARS[name]) for name, values in self._columns.items()}
        starts = np.concatenate([[0], np.cumsum([len(rows) for rows in self._rows])]).astype(np.int64)
        rows = np.concatenate([np.zeros(0, dtype=np.int32), *self._rows])
        return OrderLog(columns, rows, starts)


def write_log(log: OrderLog, path: Path) -> None:
    """Write the log as Parquet."""
    rows = pa.ListArray.from_arrays(pa.array(log.starts.astype(np.int32)), pa.array(log.rows))
    pq.write_table(pa.table({**{name: pa.array(v) for name, v in log.columns.items()}, "rows": rows}), path)


def read_log(path: Path) -> OrderLog:
    """Read a log. Raises MethodRefused for a file that is missing, damaged or of another shape."""
    try:
        table = pq.read_table(path)
        rows = table["rows"].combine_chunks()
        sizes = np.diff(rows.offsets.to_numpy())
        columns = {name: table[name].to_numpy(zero_copy_only=False).astype(kind) for name, kind in _SCALARS.items()}
    except (OSError, KeyError, pa.ArrowException) as error:
        raise MethodRefused(f"the order log {path.name} is missing or damaged ({type(error).__name__})") from error
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return OrderLog(columns, np.asarray(rows.flatten().to_numpy(), dtype=np.int32), starts)
