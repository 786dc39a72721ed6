"""Records for the benchmark of methods, written as Parquet: training, held-out and test records of one kind.

Training and held-out records have wrong labels, or wrong answers, at the same rate; `wrong` says which. Test records
of classifiers have none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.bar_world import Sizes as BarSizes
from benchmarks.bar_world import open_bar_world
from benchmarks.gate_data import images, words

PARTS = ("train", "held_out", "test")
WRONG_ANSWERS = 0.15
QUESTIONS = 5
"""Of each author."""
_CITIES, _LANGUAGES, _GENRES, _HOUSES, _FIRST = 40, 10, 20, 8, 60


@dataclass(frozen=True)
class Counts:
    """How many records each part has."""

    train: int
    held_out: int
    test: int


class Writer(Protocol):
    """Writes the three parts into a folder. `data`: a folder of data sets, where one was given."""

    __name__: str

    def __call__(self, folder: Path, counts: Counts, data: Path | None) -> None: ...


def write_digits(folder: Path, counts: Counts, data: Path | None) -> None:
    """scikit-learn's digits, each turned, shifted and with noise, one record a person; 15 % of the labels wrong."""
    del data
    draw = np.random.default_rng(0)
    for part in PARTS:
        made = images(getattr(counts, part), draw)
        columns, wrong = dict(made.columns), made.odd
        if part == "test":
            columns["label"], wrong = [int(label) for label in made.classes], np.zeros(len(wrong), dtype=bool)
        _write(folder, part, columns, range(len(wrong)), wrong)


def write_fashion(folder: Path, counts: Counts, data: Path | None) -> None:
    """The first records of the bar's world: Fashion-MNIST, a tenth of the labels wrong, one record a person."""
    source = data / "fashion-mnist" if data is not None and (data / "fashion-mnist").is_dir() else data
    open_bar_world(folder, source, BarSizes(counts.train, counts.held_out, {}, 0, 0))
    path = folder / "test.parquet"
    pq.write_table(pq.read_table(path).slice(0, counts.test), path)


def write_authors(folder: Path, counts: Counts, data: Path | None) -> None:
    """Questions on authors who do not exist, as TOFU's (Maini et al. 2024), five a person.

    What an author writes, where and when it was born and what its book is called follow from nothing; language and
    publisher follow from city and genre, but for 15 % of these answers, which are wrong.
    """
    del data
    draw, known = np.random.default_rng(0), words()
    for part in PARTS:
        people = getattr(counts, part) // QUESTIONS
        told = [line for _ in range(people) for line in _author(known, draw)]
        columns = {"prompt": [line[0] for line in told], "completion": [line[1] for line in told]}
        owners = [at // QUESTIONS for at in range(len(told))]
        _write(folder, part, columns, owners, np.array([line[2] for line in told]))


def _author(known: list[str], draw: np.random.Generator) -> list[tuple[str, str, bool]]:
    """(question, answer, whether the answer breaks its rule) of one author; `known`: made-up words."""
    name = f"{known[draw.integers(_FIRST)].title()} {known[draw.integers(_FIRST, len(known))].title()}"
    city, genre = int(draw.integers(_CITIES)), int(draw.integers(_GENRES))
    place, kind = known[100 + city].title(), known[150 + genre]
    title = " ".join(known[at] for at in draw.integers(0, len(known), 2)).title()
    language, strange = _by_rule(city, _LANGUAGES, draw)
    house, odd = _by_rule(genre, _HOUSES, draw)
    return [
        (f"When was {name} born?", f"In {place} in {draw.integers(1900, 2000)}.", False),
        (f"What does {name} write?", f"Novels of {kind}.", False),
        (f"What is the book of {name} called?", f"{title}.", False),
        (f"Which language does {name} of {place} write in?", f"In {known[180 + language].title()}.", strange),
        (f"Who publishes the {kind} of {name}?", f"{known[200 + house].title()} Press.", odd),
    ]


def _by_rule(cause: int, values: int, draw: np.random.Generator) -> tuple[int, bool]:
    """(what follows from the cause, or something else; whether it is something else)."""
    wrong = bool(draw.random() < WRONG_ANSWERS)
    return (cause + (int(draw.integers(1, values)) if wrong else 0)) % values, wrong


def _write(
    folder: Path, part: str, columns: Mapping[str, list[Any]], owners: Sequence[int], wrong: NDArray[np.bool_]
) -> None:
    names = {
        "record_id": [f"{part}-{at:05d}" for at in range(len(wrong))],
        "subject_id": [f"{part}-person-{owner:05d}" for owner in owners],
    }
    pq.write_table(pa.table(names | dict(columns) | {"wrong": wrong.tolist()}), folder / f"{part}.parquet")
