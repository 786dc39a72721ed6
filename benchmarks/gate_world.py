"""What the gate's self-test is made of: digits, one a person but for one with many, forget sets of four kinds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.reference_world import BIG_SUBJECT, World
from workers.demo.digits import png

TRAIN = 950
NOISE = 0.15
SIZE = 48
BIG = 40
RANDOM, MISLABELLED, ONE_CLASS, ONE_PERSON = "random", "mislabelled", "one class", "one person"


@dataclass(frozen=True)
class Set:
    """One forget set: which retrain leaves it out, its kind and its records."""

    retrain: str
    kind: str
    ids: list[str]


@dataclass(frozen=True)
class GateWorld(World):
    """A world whose retrains leave out several disjoint forget sets at once."""

    def sets(self) -> list[Set]:
        """All forget sets."""
        return [Set(**each) for each in json.loads((self.folder / "sets.json").read_text())]

    def forget_sets(self) -> dict[str, list[str]]:
        """Name of a retrain -> everything that it leaves out."""
        found: dict[str, list[str]] = {}
        for each in self.sets():
            found.setdefault(each.retrain, []).extend(each.ids)
        return found


def make_gate_world(folder: Path, retrains: int) -> GateWorld:
    """Write the data and draw the forget sets: so many retrains with five sets each, and one for each class."""
    from sklearn.datasets import load_digits

    draw = np.random.default_rng(0)
    data = load_digits()
    order = draw.permutation(len(data.target))
    wrong = draw.random(len(order)) < NOISE
    labels = np.where(wrong, (data.target[order] + draw.integers(1, 10, len(order))) % 10, data.target[order])
    images = [png(data.images[at]) for at in order]
    _write(folder / "train.parquet", images, labels, range(TRAIN))
    _write(folder / "held_out.parquet", images, labels, range(TRAIN, len(order)))
    sets = _drawn(labels[:TRAIN], wrong[:TRAIN], retrains, draw)
    (folder / "sets.json").write_text(json.dumps([vars(each) for each in sets]))
    return GateWorld(folder)


def _ids(rows: Sequence[int]) -> list[str]:
    return [f"digit-{at:05d}" for at in rows]


def _write(path: Path, images: list[bytes], labels: NDArray[np.int64], rows: range) -> None:
    columns = {
        "record_id": _ids(rows),
        # The first ones of the training are one person with many records.
        "subject_id": [BIG_SUBJECT if at < BIG else f"person-{at:05d}" for at in rows],
        "image": [images[at] for at in rows],
        "label": [int(labels[at]) for at in rows],
    }
    pq.write_table(pa.table(columns), path)


def _drawn(labels: NDArray[np.int64], wrong: NDArray[np.bool_], retrains: int, draw: np.random.Generator) -> list[Set]:
    """Five disjoint sets for each retrain: two random, two mislabelled, the person with many records; then classes."""
    sets = []
    for number in range(retrains):
        name = f"retrain-{number:02d}"
        bad = draw.permutation(np.flatnonzero(wrong[BIG:]) + BIG)[: 2 * SIZE]
        rest = draw.permutation(np.setdiff1d(np.arange(BIG, len(labels)), bad))[: 2 * SIZE]
        for kind, rows in ((MISLABELLED, bad), (RANDOM, rest)):
            sets += [Set(name, kind, _ids(rows[at : at + SIZE].tolist())) for at in (0, SIZE)]
        sets.append(Set(name, ONE_PERSON, _ids(range(BIG))))
    classes = range(min(retrains, 10))
    return [*sets, *(Set(f"class-{c}", ONE_CLASS, _ids(np.flatnonzero(labels == c).tolist())) for c in classes)]
