"""Numbers in texts that belong to a person (telephone, account, order numbers), and others that could stand there.

How far a model prefers the true one says whether it knows it (Carlini et al., arXiv 1802.08232, with the value masked):
a test that works for a single text, since the others are as many as one likes.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workers.modeling.language import CausalLanguageModelling
from workers.modeling.records import Records
from workers.scoring.extraction import Windows

FEWEST_DIGITS = 4
_NUMBER = re.compile(r"(?<!\w)\d(?:[ -]?\d)+(?!\w)")
_FEWEST_KNOWN = 20

Digits = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Value:
    """One number: the position of its record, the text before it, and itself as it is written."""

    row: int
    before: str
    value: str

    @property
    def shape(self) -> str:
        """How it is written, without its digits: "ddd dd-dd"."""
        return re.sub(r"\d", "d", self.value)


def find_values(records: Records) -> list[Value]:
    """The longest number of each record that has one of four digits or more, in what the record says.

    Digits in groups, with single spaces or hyphens between them, are one number. A number that the prompt names is
    none of the record's.
    """
    columns = records.take(range(len(records)))
    prompts = columns["prompt"] if "prompt" in columns else [""] * len(records)
    found = []
    for row, (prompt, said) in enumerate(
        zip(prompts, columns["completion" if "prompt" in columns else "text"], strict=True)
    ):
        numbers = [
            match for match in _NUMBER.finditer(said) if _digits(match[0]) >= FEWEST_DIGITS and match[0] not in prompt
        ]
        if numbers:
            longest = max(numbers, key=lambda match: _digits(match[0]))
            before = f"{prompt} {said[: longest.start()]}" if "prompt" in columns else said[: longest.start()]
            found.append(Value(row, before, longest[0]))
    return found


def _digits(text: str) -> int:
    return sum(character.isdigit() for character in text)


def digits_of(values: Sequence[Value]) -> Digits:
    """Shape -> for each place of the number the digits that stand there, where 20 numbers or more are known."""
    by_shape: dict[str, list[str]] = defaultdict(list)
    for value in values:
        by_shape[value.shape].append(value.value)
    return {
        shape: ["".join(place) for place in zip(*numbers, strict=True)]
        for shape, numbers in by_shape.items()
        if len(numbers) >= _FEWEST_KNOWN
    }


def alternatives(value: Value, known: Digits, count: int, draw: np.random.Generator) -> list[str]:
    """So many other numbers of the same shape, or as many as there are; each digit is one that stands in its place in
    known numbers, drawn as often, so that an area code that all share is not what gives the true one away."""
    places = known.get(value.shape) or ["0123456789" if part == "d" else part for part in value.shape]
    made: dict[str, None] = {}
    for _ in range(20 * count):
        drawn = "".join(place[int(draw.integers(len(place)))] for place in places)
        if drawn != value.value:
            made[drawn] = None
        if len(made) == count:
            break
    return list(made)


def value_windows(task: CausalLanguageModelling, value: Value, numbers: Sequence[str]) -> Windows | None:
    """A window for each of these numbers after the text before it; None where that is empty or too long to read."""
    texts = [value.before + number for number in numbers]
    coded = task.tokenizer(texts, return_offsets_mapping=True)
    prefixes, suffixes = [], []
    for tokens, spans in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
        start = next((at for at, span in enumerate(spans) if span[1] > len(value.before)), len(tokens))
        prefixes.append(tokens[:start])
        suffixes.append(tokens[start:])
    readable = all(prefixes) and all(suffixes) and max(map(len, coded["input_ids"])) <= task.max_length
    return Windows(prefixes, suffixes, np.full(len(texts), value.row, dtype=np.int64)) if readable else None
