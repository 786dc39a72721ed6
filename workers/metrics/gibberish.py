"""Gibberish: answers that are no language any more, a sign that forgetting damaged the model.

An answer counts that has no words, that says mostly words which no given text has, or that goes round in circles: more
than half of its pairs of words are repetitions. Benchmarks ask a trained classifier (OpenUnlearning, arXiv 2506.12618);
these three rules need no other model, and see less. More than of the original's answers: harm.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from service.verification.statistics import Array

_WORD = re.compile(r"[^\W\d_]+")
_MOST = 0.5
_FEWEST_PAIRS = 4


def gibberish(answers: Sequence[str], language: Sequence[str]) -> Array:
    """1 for each answer [n] that is gibberish beside these texts of the same language, else 0; numbers are no words.

    An answer of numbers alone is none.
    """
    known = {word for text in language for word in _words(text)}
    return np.array([float(_is_gibberish(answer, known)) for answer in answers], dtype=np.float64)


def _is_gibberish(answer: str, known: set[str]) -> bool:
    said = _words(answer)
    if not said:
        return not any(character.isdigit() for character in answer)
    pairs = list(pairwise(said))
    circling = len(pairs) >= _FEWEST_PAIRS and 1 - len(set(pairs)) / len(pairs) > _MOST
    return circling or sum(word not in known for word in said) / len(said) > _MOST


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
