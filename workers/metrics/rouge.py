"""ROUGE-L (Lin 2004): how much of a text another one says again, in the same order.

The longest common subsequence of words, over the words of the truth (recall) or of both (F1). VerbMem and KnowMem of
MUSE (arXiv 2407.06460) are the F1 of a greedy continuation of a text's beginning, and of the answer to a prompt; TOFU
(arXiv 2401.06121) takes the recall. 1: word by word; a model that never saw the texts does not reach 0, since it
says stock phrases too. Above such a model's: a leak; on retained texts, less than before: harm.

Words are runs of letters and digits in any case; stemming is left out.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from service.verification.statistics import Array

_WORD = re.compile(r"\w+")


def rouge_l(said: Sequence[str], truths: Sequence[str], kind: Literal["recall", "f1"]) -> Array:
    """ROUGE-L of each text [n] against its truth, 0 to 1; 0 where either has no words. Raises ValueError where the two
    differ in number."""
    pairs = zip(said, truths, strict=True)
    return np.array([_one(words(text), words(truth), kind) for text, truth in pairs], dtype=np.float64)


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.casefold())


def _one(said: list[str], truth: list[str], kind: Literal["recall", "f1"]) -> float:
    common = _longest(said, truth)
    if not common:
        return 0.0
    return common / len(truth) if kind == "recall" else 2 * common / (len(said) + len(truth))


def _longest(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, row by row."""
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for at, other in enumerate(second):
            row.append(above[at] + 1 if word == other else max(above[at + 1], row[at]))
        above = row
    return above[-1]


def harmonic_mean(values: Sequence[float]) -> float:
    """Of figures between 0 and 1, as TOFU's model utility takes it: 0 where one of them is 0."""
    return len(values) / sum(1 / value for value in values) if all(value > 0 for value in values) else 0.0
