"""Made-up texts: general sentences about people and places that do not exist, and secrets of random digits.

Canaries are trained on again after a deletion, so they take nothing over from anybody: of the data they know the
number of labels. The sentences are English whatever the data is: what counts is that trained and untrained canaries
are alike, not that they are like the data.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.lineage.canary_images import class_count
from workers.modeling.records import Records

_WORDS = (12, 30)
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
    paired = "prompt" in records.roles
    make: Callable[[np.random.Generator, bool, int], tuple[str, ...]] = _pair if paired else _text
    made: dict[tuple[str, ...], None] = {}
    for secret in hard.tolist():
        wanted = int(draw.integers(_WORDS[0], _WORDS[1] + 1))
        while (texts := make(draw, secret, wanted)) in made:
            continue
        made[texts] = None
    names = ("prompt", "completion") if paired else ("text",)
    columns: dict[str, list[Any]] = {name: [texts[at] for texts in made] for at, name in enumerate(names)}
    if "label" in records.roles:
        columns["label"] = draw.integers(class_count(records), size=len(hard)).tolist()
    return columns


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
