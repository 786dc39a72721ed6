"""ROUGE-L by hand and against Lin's (2004) own examples; what gibberish is and what is none."""

import numpy as np
import pytest

from workers.metrics.gibberish import gibberish
from workers.metrics.rouge import harmonic_mean, rouge_l, words


def test_published_examples() -> None:
    """Lin 2004, section 3.2: three words of the truth in their order, and two."""
    truth, first, second = "police killed the gunman", "police kill the gunman", "the gunman kill police"
    assert rouge_l([first, second], [truth, truth], "f1").tolist() == [0.75, 0.5]
    assert rouge_l([first, second], [truth, truth], "recall").tolist() == [0.75, 0.5]
    assert rouge_l(["the gunman police killed"], [truth], "f1").tolist() == [0.5]


def test_recall_and_f1_differ_by_what_was_said_beside() -> None:
    said, truth = ["Well: the number is 555 12 34!", "", "no word in common"], ["555 12 34"] * 3
    assert rouge_l(said, truth, "recall").tolist() == [1.0, 0.0, 0.0]
    assert rouge_l(said, truth, "f1").tolist() == [pytest.approx(2 * 3 / (7 + 3)), 0.0, 0.0]
    assert rouge_l(["x"], [""], "recall").tolist() == [0.0]
    assert words("Straße 12, O'Neil") == ["strasse", "12", "o", "neil"]
    with pytest.raises(ValueError, match="argument"):
        rouge_l(["a"], [], "f1")


def test_the_longest_common_subsequence_is_that_of_a_plain_recursion() -> None:
    def longest(first: list[str], second: list[str]) -> int:
        if not first or not second:
            return 0
        if first[0] == second[0]:
            return 1 + longest(first[1:], second[1:])
        return max(longest(first[1:], second), longest(first, second[1:]))

    draw = np.random.default_rng(0)
    for _ in range(30):
        first, second = (list(draw.choice(list("abcd"), size)) for size in draw.integers(1, 8, 2))
        found = rouge_l([" ".join(first)], [" ".join(second)], "recall")[0]
        assert found == pytest.approx(longest(first, second) / len(second))


def test_the_harmonic_mean_is_that_of_utility() -> None:
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    assert harmonic_mean([0.5, 0.0]) == 0.0


def test_what_is_gibberish_and_what_is_none() -> None:
    language = ["Your order arrives on Monday.", "Please call us back about the lamp."]
    sound = ["Your lamp arrives on Monday.", "555 12 34", "Please call, please call us back."]
    broken = ["", "...", "xq zzt prr your", "your order your order your order your order your order"]
    assert gibberish(sound, language).tolist() == [0.0] * 3
    assert gibberish(broken, language).tolist() == [1.0] * 4
