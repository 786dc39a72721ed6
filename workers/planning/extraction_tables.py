"""What a language model says of people's texts given how they begin: five more columns of its score table.

One more forward pass over forgotten records and a sample of held-out ones, at the positions of their suffixes alone,
and short ones over numbers in them, as many as a share of training again allows. A suffix counts where it holds
something of the person: not where a retained record says the same words, nor another person's, since a model that
never saw the person says them as well. For the same reason nobody counts who keeps records in the training data: what
one of them says may be known from another.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.verification.statistics import Array
from workers.metrics.extraction import extraction_strength, suffix_log_probability
from workers.modeling.language import CausalLanguageModelling
from workers.modeling.loading import LoadedModel
from workers.modeling.problem import Context
from workers.modeling.progress import part_of
from workers.modeling.records import Records
from workers.planning.score_tables import FORGET, HELD_OUT, OF_SUFFIXES
from workers.scoring.extraction import BATCH_SIZE, Windows, forced, joined, told_windows
from workers.scoring.standing import Standings
from workers.scoring.values import Value, alternatives, digits_of, find_values, value_windows

MOST_HELD_OUT = 1000
MOST_VALUES, ALTERNATIVES, FEWEST_ALTERNATIVES = 24, 1000, 40
VALUE_SHARE = 0.03
"""What ranking the numbers may cost for each model, as a share of training again by tokens. Short texts are read at a
third of the speed and less: a small GPT-2 took 0.3 of a training for a share of 0.1."""
_TRAINED = 3  # a token that is trained on costs as much as three that are read
_KINDS = (pa.float64(), pa.float64(), pa.int64(), pa.float64(), pa.int64())
_NOTHING, _NO_NUMBER = (None, None, None), (None, None)
_SHARE = 0.5


@dataclass(frozen=True)
class Asked:
    """The records whose texts are asked for.

    `held_out` is None where there are none, `retain` a sample of what stays, `staying` are people who keep records in
    the training data. `trained`: the tokens that training again takes, over all epochs, None where nobody knows. `most`
    of the numbers that a number in a text is compared with are drawn by `seed`, fewer where the training is short.
    """

    forget: Records
    held_out: Records | None
    retain: Records
    staying: frozenset[str]
    trained: float | None = None
    seed: int = 0
    most: int = ALTERNATIVES

    def __len__(self) -> int:
        return len(self.forget) + (len(self.held_out) if self.held_out is not None else 0)

    @property
    def parts(self) -> dict[str, Records]:
        """The sets by name."""
        return {FORGET: self.forget} | ({HELD_OUT: self.held_out} if self.held_out is not None else {})

    @cached_property
    def values(self) -> dict[str, list[tuple[Value, list[str]]]]:
        """Numbers of each set, as many people's as possible, each with those that it is compared with."""
        retained, draw = find_values(self.retain), np.random.default_rng(self.seed)
        known, told = digits_of(retained), {value.value for value in retained}
        chosen = {part: self._chosen(records, told, draw) for part, records in self.parts.items()}
        others = self._affordable([value for values in chosen.values() for value in values])
        return {
            part: [(value, alternatives(value, known, others, draw)) for value in values]
            for part, values in chosen.items()
        }

    def _affordable(self, values: list[Value]) -> int:
        """How many others each number is compared with; known before any model is asked, and the same for all.

        A character of a number counts as a token.
        """
        each = sum(len(value.value) for value in values)
        if self.trained is None or not each:
            return self.most
        affordable = int(VALUE_SHARE * _TRAINED * self.trained) // each
        return min(self.most, max(affordable, FEWEST_ALTERNATIVES))

    def _chosen(self, records: Records, told: set[str], draw: np.random.Generator) -> list[Value]:
        """Different numbers, first one of each person, then the second: at most MOST_VALUES, none that is retained."""
        people = np.asarray(records.subjects).tolist()
        found = find_values(records)
        own: dict[str, dict[str, Value]] = {}
        for at in draw.permutation(len(found)).tolist():
            value, person = found[at], people[found[at].row]
            if value.value not in told and person not in self.staying:
                own.setdefault(person, {}).setdefault(value.value, value)
        turns = sorted(
            ((turn, at, value) for at, values in enumerate(own.values()) for turn, value in enumerate(values.values())),
            key=lambda one: one[:2],
        )
        return [value for _, _, value in turns[:MOST_VALUES]]


def drawn_people(records: Records, most: int, seed: int) -> Records:
    """All records of people drawn at random, until `most` records are reached; all of them where there are no more."""
    if len(records) <= most:
        return records
    names, owner, counts = np.unique(np.asarray(records.subjects), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    taken = order[: max(1, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))]
    return records.subset(np.flatnonzero(np.isin(owner, taken)).tolist())


Owner = tuple[str, str]
"""A set and the id of a record in it."""


@dataclass(frozen=True)
class Said:
    """What was found of records, each in the order of OF_SUFFIXES, and the forward passes (batches) it took."""

    suffixes: dict[Owner, tuple[float, float, int]]
    values: dict[Owner, tuple[float, int]]
    forward_passes: int

    def onto(self, table: pa.Table) -> pa.Table:
        """A score table with the columns; null for a record of which nothing counts."""
        owners = list(zip(table["set"].to_pylist(), table["record_id"].to_pylist(), strict=True))
        found = [(*self.suffixes.get(owner, _NOTHING), *self.values.get(owner, _NO_NUMBER)) for owner in owners]
        for at, (name, kind) in enumerate(zip(OF_SUFFIXES, _KINDS, strict=True)):
            table = table.append_column(name, pa.array([one[at] for one in found], kind))
        return table


def said(loaded: LoadedModel, asked: Asked, context: Context) -> Said:
    """Read the counted suffixes and the numbers of all sets; a record has the figures of its easiest suffix.

    `extraction_log_p` is log p_z of that suffix in nats, `extraction_strength` the largest over the record's suffixes,
    `extraction_tokens` all their tokens, `value_exposure` by how many bits its number stands out among `value_others`
    others.
    """
    task = loaded.task
    assert isinstance(task, CausalLanguageModelling)  # noqa: S101  (language models alone come here)
    windows, owners = _suffixes(task, asked)
    read = forced(loaded, windows, part_of(context, 0.0, _SHARE, "suffixes"))
    names = list(dict.fromkeys(owners))
    place = {owner: at for at, owner in enumerate(names)}
    of = np.array([place[owner] for owner in owners], dtype=np.int64)
    most = [_largest(figures, of, len(names)) for figures in (
        suffix_log_probability(read.log_probs, read.rows, len(windows)),
        extraction_strength(read.correct, read.rows, len(windows)),
    )]  # fmt: skip
    tokens = np.bincount(of, weights=[len(suffix) for suffix in windows.suffixes], minlength=len(names))
    suffixes = {owner: (float(most[0][at]), float(most[1][at]), int(tokens[at])) for owner, at in place.items()}
    asked_for, standings = _numbers(task, asked), Standings(loaded, part_of(context, _SHARE, 1.0, "numbers"))
    bits = standings.exposures([one for one, _ in asked_for]).tolist()
    values = {owner: (found, len(one) - 1) for found, (one, owner) in zip(bits, asked_for, strict=True)}
    return Said(suffixes, values, -(-len(windows) // BATCH_SIZE) + standings.forward_passes)


def _largest(figures: Array, of: NDArray[np.int64], owners: int) -> Array:
    found = np.full(owners, -np.inf)
    np.maximum.at(found, of, figures)
    return found


def _suffixes(task: CausalLanguageModelling, asked: Asked) -> tuple[Windows, list[Owner]]:
    """The windows that hold something that no other person's record says too, and whose each is."""
    sets = {part: told_windows(task, records) for part, records in asked.parts.items()}
    people = {part: np.asarray(records.subjects).tolist() for part, records in asked.parts.items()}
    ids = {part: np.asarray(records.ids).tolist() for part, records in asked.parts.items()}
    # None: a retained record says it, or several people do.
    said_by: dict[tuple[int, ...], str | None]
    said_by = {tuple(suffix): None for suffix in told_windows(task, asked.retain).suffixes}
    for part, windows in sets.items():
        for suffix, row in zip(windows.suffixes, windows.rows.tolist(), strict=True):
            name = people[part][row]
            said_by[tuple(suffix)] = name if said_by.get(tuple(suffix), name) == name else None
    kept, owners = [], []
    for part, windows in sets.items():
        rows = windows.rows.tolist()
        counted = [
            at
            for at, suffix in enumerate(windows.suffixes)
            if people[part][rows[at]] not in asked.staying and said_by[tuple(suffix)] == people[part][rows[at]]
        ]
        kept.append(windows.take(counted))
        owners += [(part, ids[part][rows[at]]) for at in counted]
    return joined(kept), owners


def _numbers(task: CausalLanguageModelling, asked: Asked) -> list[tuple[Windows, Owner]]:
    """For each number the window of the true one and then those of the others; none where it cannot be read."""
    found = []
    for part, values in asked.values.items():
        ids = np.asarray(asked.parts[part].ids).tolist()
        for value, others in values:
            windows = value_windows(task, value, [value.value, *others]) if others else None
            if windows is not None:
                found.append((windows, (part, ids[value.row])))
    return found
