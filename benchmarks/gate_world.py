"""What the gate's self-test is made of: digits in four variants a person, forget sets of four kinds, many retrains.

A person here is a digit of the original collection in four slightly different scans, right or wrong as a whole: no
scan of a forgotten digit stays behind with somebody else, and what was held out was never seen in any form.
"""

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

TRAIN, HELD_OUT, VARIANTS = 1100, 697, 4
NOISE = 0.15
SET_PEOPLE = 12
BIG = 10
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
    """Write the data and draw the forget sets: so many retrains with ten sets each, and one for each class."""
    from sklearn.datasets import load_digits

    draw = np.random.default_rng(0)
    data = load_digits()
    order = draw.permutation(len(data.target))[: TRAIN + HELD_OUT]
    wrong = draw.random(len(order)) < NOISE
    labels = np.where(wrong, (data.target[order] + draw.integers(1, 10, len(order))) % 10, data.target[order])
    images = [_variants(data.images[at], draw) for at in order]
    _write(folder / "train.parquet", images, labels, wrong, range(TRAIN))
    _write(folder / "held_out.parquet", images, labels, wrong, range(TRAIN, len(order)))
    sets = _drawn(labels[:TRAIN], wrong[:TRAIN], retrains, draw)
    (folder / "sets.json").write_text(json.dumps([vars(each) for each in sets]))
    return GateWorld(folder)


def _variants(image: NDArray[np.float64], draw: np.random.Generator) -> list[bytes]:
    return [png(np.clip(image + draw.normal(0, 1.0, image.shape), 0, 16)) for _ in range(VARIANTS)]


def _ids(people: Sequence[int]) -> list[str]:
    return [f"digit-{at:05d}-{scan}" for at in people for scan in range(VARIANTS)]


def _write(
    path: Path, images: list[list[bytes]], labels: NDArray[np.int64], wrong: NDArray[np.bool_], people: range
) -> None:
    rows = [(at, scan) for at in people for scan in range(VARIANTS)]
    # The first ones of the training are one person with many records.
    names = [BIG_SUBJECT if at < BIG else f"person-{at:05d}" for at, _ in rows]
    columns = {
        "record_id": _ids(people),
        "subject_id": names,
        "image": [images[at][scan] for at, scan in rows],
        "label": [int(labels[at]) for at, _ in rows],
        "wrong": [bool(wrong[at]) for at, _ in rows],
    }
    pq.write_table(pa.table(columns), path)


def _drawn(labels: NDArray[np.int64], wrong: NDArray[np.bool_], retrains: int, draw: np.random.Generator) -> list[Set]:
    """Ten disjoint sets for each retrain: five random, four mislabelled, the person with many records; then classes."""
    sets = []
    for number in range(retrains):
        name = f"retrain-{number:02d}"
        bad = draw.permutation(np.flatnonzero(wrong[BIG:]) + BIG)[: 4 * SET_PEOPLE]
        rest = draw.permutation(np.setdiff1d(np.arange(BIG, len(labels)), bad))[: 5 * SET_PEOPLE]
        for kind, people in ((MISLABELLED, bad), (RANDOM, rest)):
            groups = (people[at : at + SET_PEOPLE].tolist() for at in range(0, len(people), SET_PEOPLE))
            sets += [Set(name, kind, _ids(group)) for group in groups]
        sets.append(Set(name, ONE_PERSON, _ids(range(BIG))))
    classes = range(min(retrains, 10))
    return [*sets, *(Set(f"class-{c}", ONE_CLASS, _ids(np.flatnonzero(labels == c).tolist())) for c in classes)]
