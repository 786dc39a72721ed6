"""Exposure: its exact law without a trace, the cap, and how often bounds and limits err."""

import math

import numpy as np
import pytest
from scipy import stats

from service.verification.exposure import (
    NULL_MEAN,
    exposure,
    exposure_within,
    mean_exposure,
    null_mean,
    p_values,
    rank_one_bound,
    rank_one_limit,
    ranks,
)

REFERENCES = 1024


def clean(random: np.random.Generator, draws: int, canaries: int, references: int = REFERENCES) -> np.ndarray:
    """Ranks [draws, canaries] of canaries that left no trace, each draw among references of its own."""
    found = np.empty((draws, canaries), dtype=np.int64)
    for at in range(draws):
        found[at] = ranks(random.random(canaries), random.random(references))
    return found


def test_ranks_and_bits_by_hand() -> None:
    references = np.array([3.0, 1.0, 2.0, 4.0])
    found = ranks(np.array([0.5, 1.0, 2.5, 9.0]), references)
    # A tie goes to the reference.
    assert found.tolist() == [1, 2, 3, 5]
    assert exposure(found, 4) == pytest.approx([2.0, 1.0, 2 - math.log2(3), 2 - math.log2(5)])
    assert p_values(found, 4) == pytest.approx([0.2, 0.4, 0.6, 1.0])
    for wrong in (np.array([math.nan]), np.array([])):
        with pytest.raises(ValueError, match="ranks"):
            ranks(np.array([1.0]), wrong)


def test_without_a_trace_exposure_has_its_exact_law() -> None:
    found = clean(np.random.default_rng(1), 2000, 20)
    bits = exposure(found, REFERENCES)
    for reached in (1, 2, 4, 7):
        expected = 2.0**-reached
        # Draws of twenty share references; the tolerance is that of the draws alone.
        assert (bits >= reached).mean() == pytest.approx(expected, abs=4 * math.sqrt(expected / 2000))
    assert bits.mean() == pytest.approx(NULL_MEAN, abs=0.03)
    assert bits.mean() == pytest.approx(null_mean(REFERENCES), abs=0.03)
    assert null_mean(10**7) == pytest.approx(1 / math.log(2), abs=1e-5)
    every = np.arange(1, 8, dtype=np.int64)
    assert null_mean(6) == pytest.approx(exposure(every, 6).mean())


def test_p_values_are_uniform_without_a_trace() -> None:
    found = p_values(clean(np.random.default_rng(2), 4000, 1, 99)[:, 0], 99)
    for level in (0.01, 0.05, 0.5):
        assert (found <= level).mean() == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 4000))


def test_a_memorised_string_reaches_the_cap() -> None:
    # Counts of letter pairs in a text that holds one string ten times: its loss is below that of every other.
    random = np.random.default_rng(3)
    references = random.integers(0, 10, size=(REFERENCES, 16))
    canaries = random.integers(0, 10, size=(5, 16))

    def losses(trained: np.ndarray, strings: np.ndarray) -> np.ndarray:
        pairs = np.ones((16, 10, 10))
        for string in trained:
            pairs[np.arange(1, 16), string[:-1], string[1:]] += 10
        chances = pairs / pairs.sum(2, keepdims=True)
        log_chances = np.log(chances[np.arange(1, 16), strings[:, :-1], strings[:, 1:]])
        return np.asarray(-log_chances.sum(1))

    planted = exposure(ranks(losses(canaries, canaries), losses(canaries, references)), REFERENCES)
    assert planted == pytest.approx(np.full(5, 10.0))
    others = random.integers(0, 10, size=(200, 16))
    untouched = exposure(ranks(losses(canaries, others), losses(canaries, references)), REFERENCES)
    assert untouched.mean() == pytest.approx(NULL_MEAN, abs=0.4)
    # A model that finds all strings equally likely shows no exposure at all, not half of it.
    flat = exposure(ranks(np.ones(5), np.ones(REFERENCES)), REFERENCES)
    assert flat.max() < 0


def shifted(shift: float, share: float, draws: int, canaries: int) -> tuple[np.ndarray, float]:
    """Exposures of canaries of which a share has a loss lower by `shift` standard deviations, and their true mean."""
    random = np.random.default_rng(canaries)
    bits = np.empty((draws, canaries))
    for at in range(draws):
        losses = random.normal(size=canaries) - shift * (random.random(canaries) < share)
        bits[at] = exposure(ranks(losses, random.normal(size=REFERENCES)), REFERENCES)
    mean: float = bits.mean()
    return bits, mean


def missed(bits: np.ndarray, true: float) -> tuple[float, float]:
    """Shares of draws whose one-sided 95 % bounds lie on the wrong side of the true mean: (upper, lower)."""
    low, high = np.array([mean_exposure(row, REFERENCES).interval(0.9) for row in bits]).T
    return float((high < true).mean()), float((low > true).mean())


@pytest.mark.parametrize("canaries", [10, 20, 72, 305])
def test_bounds_of_the_mean_cover_without_a_trace(canaries: int) -> None:
    draws = 1500
    bits, _ = shifted(0.0, 0.0, draws, canaries)
    assert max(missed(bits, null_mean(REFERENCES))) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


# Seen over 600 draws: upper bounds too low in 1 to 7 %, with ten canaries of which one is remembered in 10 %; lower
# bounds too high in 4 % at most.
@pytest.mark.parametrize("canaries", [20, 72, 305])
@pytest.mark.parametrize(("shift", "share"), [(0.5, 1.0), (1.0, 1.0), (3.0, 0.1)])
def test_bounds_of_the_mean_cover_a_leak_nearly(canaries: int, shift: float, share: float) -> None:
    above, below = missed(*shifted(shift, share, 600, canaries))
    assert above <= 0.09
    assert below <= 0.06


def test_bounds_find_leaks_and_over_forgetting() -> None:
    low, high = np.array([mean_exposure(row, REFERENCES).interval(0.9) for row in shifted(1.0, 1.0, 200, 72)[0]]).T
    assert (high < 2.4).mean() == 0
    assert (low > NULL_MEAN).mean() == 1
    low, high = np.array([mean_exposure(row, REFERENCES).interval(0.9) for row in shifted(-1.0, 1.0, 200, 72)[0]]).T
    assert (high < 0.9).mean() > 0.95
    assert (low > 0.9).mean() == 0


@pytest.mark.parametrize(("canaries", "share"), [(20, 0.70), (72, 0.997)])
def test_so_many_clean_runs_pass_the_limit_of_2_4_bits(canaries: int, share: float) -> None:
    bits, _ = shifted(0.0, 0.0, 2000, canaries)
    high = np.array([mean_exposure(row, REFERENCES).interval(0.9)[1] for row in bits])
    assert (high < 2.4).mean() == pytest.approx(share, abs=0.035)
    # The note has 85 % and 99.8 %: those of Student's t alone, whose upper bound is too low more often than it says.
    student = bits.mean(1) + stats.t.ppf(0.95, canaries - 1) * bits.std(1, ddof=1) / math.sqrt(canaries)
    assert (student < null_mean(REFERENCES)).mean() > 0.065


def test_rank_one_limits() -> None:
    assert [rank_one_limit(c, REFERENCES, shared=False) for c in (72, 305)] == [1, 2]
    for canaries in (72, 305):
        limit = rank_one_limit(canaries, REFERENCES, shared=False)
        law = stats.binom(canaries, 1 / (REFERENCES + 1))
        assert law.cdf(limit) >= 0.995 > law.cdf(limit - 1)
    found = (clean(np.random.default_rng(5), 20_000, 305) == 1).sum(1)
    limit = rank_one_limit(305, REFERENCES)
    assert limit == 3
    assert (found > limit).mean() <= 0.005
    # With shared references the binomial limit is exceeded more often than it says.
    assert (found > 2).mean() > 0.009
    # 305 x 304 x 303 / 1,329 x 1,328 x 1,327 = 1.2 % for three or more.
    assert [rank_one_limit(305, REFERENCES, level) for level in (0.98, 0.99)] == [2, 3]
    assert rank_one_limit(2, 1, 0.999999) == 2


def test_no_canary_has_no_mean_and_one_has_wide_bounds() -> None:
    with pytest.raises(ValueError, match="no canary"):
        mean_exposure(np.array([]), REFERENCES)
    low, high = mean_exposure(np.array([10.0]), REFERENCES).interval()
    assert low < 3
    assert high > 100


def test_exposure_within_kinds_by_hand() -> None:
    losses, kinds = np.array([0.5, 10.5, 99.0]), np.array(["easy", "hard", "hard"])
    references = np.array([1.0, 2.0, 3.0, 4.0, 10.0, 11.0, 12.0, 13.0])
    bits, mean, null = exposure_within(losses, references, kinds, np.repeat(["easy", "hard"], 4))
    assert bits.tolist() == [2.0, 1.0, 2 - math.log2(5)]
    assert (mean.mean, mean.canaries) == (pytest.approx(bits.mean()), 3)
    assert mean.references == round(1 / ((1 / 9 + 4 / 9) / 4)) == 7
    assert null == pytest.approx(null_mean(4))
    # One kind is what it was without kinds.
    alike = exposure_within(losses, references, np.full(3, ""), np.full(8, ""))
    assert alike[0].tolist() == exposure(ranks(losses, references), 8).tolist()
    assert (alike[1].references, alike[2]) == (8, null_mean(8))
    with pytest.raises(ValueError, match="at least one reference"):
        exposure_within(losses, references, np.array(["easy", "hard", "other"]), np.repeat(["easy", "hard"], 4))


def test_without_a_trace_the_mean_within_kinds_is_covered() -> None:
    random, misses = np.random.default_rng(3), 0
    for _ in range(300):
        ours, theirs = np.repeat(["easy", "hard"], [37, 36]), np.repeat(["easy", "hard"], [183, 182])
        losses, others = (random.normal(size=len(part)) + 4 * (part == "hard") for part in (ours, theirs))
        _, mean, null = exposure_within(losses, others, ours, theirs)
        low, high = mean.interval()
        misses += not low <= null <= high
    assert misses <= 25  # 5 % of 300 is 15; P(more than 25) < 0.01


def test_no_division_into_two_kinds_allows_more_in_first_place_than_the_bound() -> None:
    random = np.random.default_rng(8)
    for _ in range(300):
        canaries, outside = random.integers(1, 60, 2), random.integers(1, 300, 2)
        share = canaries / canaries.sum()
        counted = max(1, round(1 / float((share**2 / outside).sum())))
        limits = [rank_one_limit(int(c), int(r), 1 - 0.005 / 2) for c, r in zip(canaries, outside, strict=True)]
        assert sum(limits) <= rank_one_bound(int(canaries.sum()), counted)
        alone = rank_one_limit(int(canaries[0]), int(outside[0]))
        assert alone <= rank_one_bound(int(canaries[0]), int(outside[0]))
    # As many as gate: a few more than an even division allows, and far from all of them.
    even = 2 * rank_one_limit(36, 182, 1 - 0.005 / 2)
    assert even <= rank_one_bound(73, 365) < 15
