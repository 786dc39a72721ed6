"""Made-up texts: general sentences about people and places that do not exist, and secrets of random digits.

Of the data they know how long its texts usually are and how often each label occurs, both over many people, and no
word of it. The sentences are English whatever the data is: what counts is that trained and untrained canaries are
alike, not that they are like the data.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.modeling.records import Records, chunks

FEWEST_SUBJECTS = 20
_SAMPLE = 5_000
_USUAL_WORDS = (12, 30)
_LEAST_WORDS, _MOST_WORDS = 6, 200
_DIGITS = 10

_SENTENCES = (
    "{name} wrote on {day} about the {thing} and had an answer within {small} days.",
    "The {thing} of {name} was sent to {place} on {day}.",
    "{name} from {place} asked whether the {thing} could be changed, and it could.",
    "On {day} {name} came to {place} because of the {thing}, and all was settled.",
    "{name} has lived in {place} for {small} years and knows the {thing} well.",
    "There were {small} questions from {name} about the {thing}, answered on {day}.",
    "After {small} weeks in {place} the {thing} was found again, and {name} was glad.",
    "In {place} the {thing} costs {small} more on {day}, as {name} told us.",
)
_QUESTIONS = (
    "What did {name} say about the {thing}?",
    "What happened to the {thing} in {place} on {day}?",
    "Please tell me about {name} from {place}.",
    "Was the {thing} of {name} settled on {day}?",
)
_SECRETS = (
    "The {secret} of {name} is {digits}.",
    "Please note the {secret} of {name}: {digits}.",
    "{name} gave us the {secret} {digits}.",
    "{digits} is the {secret} that {name} uses.",
)
_SECRET_QUESTIONS = (
    "What is the {secret} of {name}?",
    "Tell me the {secret} of {name}.",
    "Which {secret} does {name} have?",
)
_ANSWER = "The {secret} of {name} is {digits}."
_SLOTS = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),
    "thing": ("order", "contract", "parcel", "invoice", "visit", "booking", "delivery", "letter", "repair", "lesson"),
    "secret": ("access code", "account number", "card number", "case number", "locker code", "membership number"),
}
_ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gl",
    "j",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "st",
    "t",
    "v",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ei", "ou")
_CODAS = ("", "", "l", "m", "n", "r", "s", "t", "x")


def text_columns(records: Records, hard: NDArray[np.bool_], draw: np.random.Generator) -> dict[str, list[Any]]:
    """The columns that the records have, `text` or `prompt` and `completion`, and `label`, with M = len(hard) rows."""
    rows = np.sort(draw.permutation(len(records))[:_SAMPLE])
    sample = _taken(records, rows)
    lengths = usual_lengths(sample["completion" if "prompt" in sample else "text"], np.asarray(records.subjects)[rows])
    make: Callable[[np.random.Generator, bool, int], tuple[str, ...]] = _pair if "prompt" in sample else _text
    made: dict[tuple[str, ...], None] = {}
    for secret in hard.tolist():
        wanted = int(draw.integers(lengths[0], lengths[1] + 1))
        while (texts := make(draw, secret, wanted)) in made:
            continue
        made[texts] = None
    names = ("prompt", "completion") if "prompt" in sample else ("text",)
    columns: dict[str, list[Any]] = {name: [texts[at] for texts in made] for at, name in enumerate(names)}
    if "label" in sample:
        columns["label"] = _labels(np.array(sample["label"]), hard, draw)
    return columns


def _taken(records: Records, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {role: [] for role in records.roles}
    for part in chunks(len(rows), 1024):
        for role, values in records.take(rows[part.start : part.stop].tolist()).items():
            found[role] += values
    return found


def usual_lengths(texts: list[str], subjects: NDArray[Any]) -> tuple[int, int]:
    """Lower and upper quartile of the words of texts, within 6..200; of fewer than 20 people none are taken."""
    if len(np.unique(subjects)) < FEWEST_SUBJECTS:
        return _USUAL_WORDS
    quartiles = np.quantile([len(text.split()) for text in texts], [0.25, 0.75])
    low, high = np.clip(np.rint(quartiles), _LEAST_WORDS, _MOST_WORDS).astype(int).tolist()
    return low, high


def _labels(known: NDArray[np.int64], hard: NDArray[np.bool_], draw: np.random.Generator) -> list[int]:
    """Labels as frequent as in the data, for hard canaries all equally likely."""
    labels, counts = np.unique(known, return_counts=True)
    usual = draw.choice(labels, size=len(hard), p=counts / counts.sum())
    return [int(label) for label in np.where(hard, draw.choice(labels, size=len(hard)), usual)]


def _text(draw: np.random.Generator, secret: bool, words: int) -> tuple[str, ...]:
    slots = _fillings(draw)
    if secret:
        return (_picked(draw, _SECRETS).format(**slots),)
    return (_story(draw, slots, words),)


def _pair(draw: np.random.Generator, secret: bool, words: int) -> tuple[str, ...]:
    slots = _fillings(draw)
    if secret:
        return _picked(draw, _SECRET_QUESTIONS).format(**slots), _ANSWER.format(**slots)
    return _picked(draw, _QUESTIONS).format(**slots), _story(draw, slots, words)


def _story(draw: np.random.Generator, slots: dict[str, str], words: int) -> str:
    """Sentences until there are so many words; the first about the same name and thing as a question before it."""
    told = _picked(draw, _SENTENCES).format(**slots)
    while len(told.split()) < words:
        told += " " + _picked(draw, _SENTENCES).format(**_fillings(draw))
    return told


def _fillings(draw: np.random.Generator) -> dict[str, str]:
    slots = {name: _picked(draw, values) for name, values in _SLOTS.items()}
    digits = "".join(str(digit) for digit in draw.integers(0, 10, _DIGITS))
    name = f"{_word(draw, 2)} {_word(draw, 3)}"
    return {**slots, "name": name, "place": _word(draw, 3), "small": str(draw.integers(2, 30)), "digits": digits}


def _word(draw: np.random.Generator, syllables: int) -> str:
    parts = [_picked(draw, _ONSETS) + _picked(draw, _VOWELS) for _ in range(syllables)]
    return ("".join(parts) + _picked(draw, _CODAS)).capitalize()


def _picked(draw: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(draw.integers(len(values)))]
