"""Lower bounds on epsilon: closed forms, the tables of the research note, and how seldom they claim too much."""

import functools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from service.verification.one_run import epsilon_from_guesses, epsilon_from_rates, epsilon_needed, guesses_p_value
from service.verification.proportions import Proportion


@pytest.mark.parametrize(
    ("guesses", "largest"),
    [(5, 0.20), (10, 1.05), (20, 1.82), (50, 2.78), (100, 3.49), (200, 4.19), (500, 5.11), (1000, 5.81), (5000, 7.42)],
)
def test_all_correct_gives_the_closed_form(guesses: int, largest: float) -> None:
    accuracy = 0.05 ** (1 / guesses)
    assert epsilon_from_guesses(guesses, guesses) == pytest.approx(math.log(accuracy / (1 - accuracy)), rel=1e-6)
    assert epsilon_from_guesses(guesses, guesses) == pytest.approx(largest, abs=0.006)


@pytest.mark.parametrize(("guesses", "correct"), [(10, 5), (1000, 500), (1000, 520), (4, 4), (10, 0)])
def test_guesses_that_chance_explains_prove_nothing(guesses: int, correct: int) -> None:
    assert epsilon_from_guesses(guesses, correct) == 0


def by_the_definition(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Theorem 3.1 written out with SciPy's binomial distribution."""
    law = stats.binom(r, 1 / (1 + math.exp(-epsilon)))
    steepest = max(law.cdf(v - 1) - (law.cdf(v - i - 1) if v > i else 0.0) for i in [1]) if v else 0.0
    for i in range(2, v + 1):
        steepest = max(steepest, (law.cdf(v - 1) - (law.cdf(v - i - 1) if v > i else 0.0)) / i)
    return min(1.0, float(law.sf(v - 1)) + 2 * m * delta * steepest)


@pytest.mark.parametrize(("m", "r", "v"), [(100, 20, 18), (1000, 100, 70), (1000, 1000, 560), (50, 50, 1), (50, 50, 0)])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
def test_p_is_that_of_the_theorem(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    assert guesses_p_value(r, v, epsilon, delta, m) == pytest.approx(
        by_the_definition(m, r, v, epsilon, delta), rel=1e-7
    )


def test_delta_lowers_the_bound() -> None:
    found = [epsilon_from_guesses(100, 95, delta=delta, canaries=1000) for delta in (0.0, 1e-6, 1e-5, 1e-4)]
    assert found == sorted(found, reverse=True)
    assert found[0] == epsilon_from_guesses(100, 95)
    assert found[2] < found[0]
    assert found[-1] >= 0


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 3.0])
def test_randomised_response_is_seldom_accused_of_more_than_it_has(epsilon: float) -> None:
    guesses = 200
    law = stats.binom(guesses, 1 / (1 + math.exp(-epsilon)))
    bounds = np.array([epsilon_from_guesses(guesses, correct) for correct in range(guesses + 1)])
    # Exactly, by summing over every number of correct guesses, not by drawing runs.
    accused = float(law.pmf(np.arange(guesses + 1))[bounds > epsilon].sum())
    assert 0.01 < accused <= 0.05


@pytest.mark.parametrize(("guesses", "above_0", "above_1"), [
    (5, 3.09, None), (10, 2.40, 3.79), (20, 1.38, 3.14), (50, 0.78, 2.06), (100, 0.51, 1.63), (200, 0.37, 1.42),
    (500, 0.22, 1.27), (1000, 0.16, 1.18), (5000, 0.07, 1.08),
])  # fmt: skip
def test_epsilon_that_so_many_guesses_can_show(guesses: int, above_0: float, above_1: float | None) -> None:
    assert epsilon_needed(guesses) == pytest.approx(above_0, abs=0.006)
    shown = epsilon_needed(guesses, shown=1.0)
    assert shown == (None if above_1 is None else pytest.approx(above_1, abs=0.006))
    assert epsilon_needed(3) is None


def gaussian_epsilon(shift: float, delta: float) -> float:
    """Epsilon of N(shift, 1) against N(0, 1) at this delta (Balle and Wang 1805.06530)."""

    def excess(epsilon: float) -> float:
        beyond = stats.norm.cdf(-shift / 2 - epsilon / shift)
        return float(stats.norm.cdf(shift / 2 - epsilon / shift) - math.exp(epsilon) * beyond - delta)

    return float(optimize.brentq(excess, 0, 50))


@functools.cache
def bound(guesses: int, correct: int, canaries: int) -> float:
    return epsilon_from_guesses(guesses, correct, delta=1e-5, canaries=canaries)


def gaussian_bounds(shift: float, canaries: int, runs: int) -> np.ndarray:
    """Bounds of attacks that guess the most confident tenth of canaries: the highest are in, the lowest are out."""
    random, guesses = np.random.default_rng(canaries), max(10, canaries // 10)
    members = random.random((runs, canaries)) < 0.5
    scores = random.normal(size=(runs, canaries)) + shift * members
    order = np.argsort(np.abs(scores - shift / 2), axis=1)[:, -guesses:]
    chosen, inside = (np.take_along_axis(values, order, axis=1) for values in (scores, members))
    correct = ((chosen > shift / 2) == inside).sum(1)
    return np.array([bound(guesses, int(count), canaries) for count in correct])


# Medians of the note at 50, 200, 1,000 and 5,000 canaries, and the true epsilon at delta 1e-5.
@pytest.mark.parametrize(("shift", "true", "medians"), [
    (0.5, 2.0, (0.0, 0.18, 0.65, 0.87)),
    (1.0, 4.38, (0.43, 0.93, 1.63, 1.97)),
    (2.0, 10.0, (1.05, 1.82, 3.49, 4.26)),
])  # fmt: skip
def test_gaussian_leaks_are_bounded_from_below(shift: float, true: float, medians: tuple[float, ...]) -> None:
    assert gaussian_epsilon(shift, 1e-5) == pytest.approx(true, abs=0.05)
    for canaries, median in zip((50, 200, 1000, 5000), medians, strict=True):
        found = gaussian_bounds(shift, canaries, 300)
        assert (found < true).mean() >= 0.95
        # Bounds are discrete, and the median of so many runs moves by one guess.
        assert np.median(found) == pytest.approx(median, abs=0.05)


def test_a_model_without_a_leak_is_seldom_accused() -> None:
    assert (gaussian_bounds(0.0, 1000, 1000) > 0).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_rates_of_the_published_vector_prove_nothing() -> None:
    # privacy-estimates: TP 487, TN 1, FP 512, FN 0: everything was called a member.
    assert epsilon_from_rates(Proportion(512, 513), Proportion(0, 487)) == 0


def test_rates_by_hand_and_both_ways_round() -> None:
    # No error among 1,000 each: upper bounds 1 - 0.025^(1/1000) of both rates.
    upper = 1 - 0.025 ** (1 / 1000)
    none = Proportion(0, 1000)
    assert epsilon_from_rates(none, none) == pytest.approx(math.log((1 - upper) / upper))
    assert epsilon_from_rates(none, none, delta=0.01) == pytest.approx(math.log((0.99 - upper) / upper))
    few, many = Proportion(2, 1000), Proportion(600, 1000)
    assert epsilon_from_rates(few, many) == epsilon_from_rates(many, few) > 3
    assert epsilon_from_rates(Proportion(10, 10), Proportion(10, 10)) == 0


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 2.5])
def test_rates_of_randomised_response_seldom_claim_too_much(epsilon: float) -> None:
    # Exactly, over all pairs of error counts that happen at all.
    error, trials = 1 / (1 + math.exp(epsilon)), 25
    counts = np.arange(trials + 1)
    weights = stats.binom.pmf(counts, trials, error)
    likely = counts[weights > 1e-4]
    claimed = sum(
        weights[a] * weights[b] * (epsilon_from_rates(Proportion(a, trials), Proportion(b, trials)) > epsilon)
        for a in likely
        for b in likely
    )
    assert claimed + 1 - weights[likely].sum() ** 2 <= 0.05


@pytest.mark.parametrize("wrong", [
    {"correct": 11}, {"correct": -1}, {"canaries": 9}, {"delta": 1e-5, "canaries": None}, {"epsilon": -1.0},
    {"delta": 2.0},
])  # fmt: skip
def test_impossible_numbers_are_refused(wrong: dict[str, float | int | None]) -> None:
    numbers = {"guesses": 10, "correct": 5, "epsilon": 1.0, "delta": 0.0, "canaries": 20} | wrong
    with pytest.raises(ValueError, match="must"):
        guesses_p_value(**numbers)  # type: ignore[arg-type]
