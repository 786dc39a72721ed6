"""Extraction by hand, its closed forms, and how its rate errs."""

import math
import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from workers.metrics.extraction import (
    extractable,
    extraction_excess,
    extraction_rate,
    extraction_strength,
    leak_at_k,
    leaked,
    mean_difference,
    queries_needed,
    suffix_log_probability,
    worst_case,
)


def test_queries_by_hand() -> None:
    p = np.array([1.0, 0.5, 0.1, 1e-3, 1e-12])
    needed = queries_needed(np.log(p))
    # ln 2 / -ln(1 - p): 6.58 queries for 0.1, 692.8 for 0.001.
    assert needed[:4].tolist() == [1, 1, 7, 693]
    assert needed[4] == pytest.approx(math.log(2) * 1e12, rel=1e-6)
    assert queries_needed(np.array([-np.inf, 1e-9])).tolist() == [math.inf, 1]
    assert queries_needed(np.log([0.1]), chance=0.9).tolist() == [22]
    assert extractable(np.log(p)).tolist() == [True, True, True, True, False]
    assert extractable(np.log([1e-3]), queries=692).tolist() == [False]


@pytest.mark.parametrize("p", [0.003, 0.05, 0.4])
def test_so_many_queries_do_say_it_as_often_as_promised(p: float) -> None:
    random = np.random.default_rng(0)
    needed = int(queries_needed(np.log([p]), 0.5)[0])
    said = (random.random((4000, needed)) < p).any(axis=1).mean()
    fewer = (random.random((4000, max(needed - 1, 1))) < p).any(axis=1).mean()
    assert said == pytest.approx(1 - (1 - p) ** needed, abs=0.03)
    assert 1 - (1 - p) ** needed >= 0.5 > 1 - (1 - p) ** (needed - 1)
    assert fewer <= said + 0.03


def test_suffixes_multiply_within_their_window() -> None:
    rows = np.array([0, 0, 2, 2, 2])
    found = suffix_log_probability(np.log([0.5, 0.5, 1.0, 0.1, 0.1]), rows, 3)
    assert np.exp(found) == pytest.approx([0.25, 1.0, 0.01])
    assert suffix_log_probability(np.array([0.0, -np.inf]), np.array([0, 0]), 1).tolist() == [-np.inf]


def test_strength_by_hand() -> None:
    cases = [[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1, 1], [0], []]
    correct = np.array([bool(flag) for case in cases for flag in case])
    rows = np.repeat(np.arange(len(cases)), [len(case) for case in cases])
    # Even the last token wrong: 0, however much before it is right.
    assert extraction_strength(correct, rows, len(cases)) == pytest.approx([1.0, 0.5, 0.0, 0.8, 0.0, 0.0])


def test_secrets_are_found_in_other_words_and_spacing() -> None:
    texts = [["It is 12  34.", "no"], ["my\nCODE abc", "12 34"]]
    assert leaked(texts, ["12 34", "code ABC"]).tolist() == [[True, False], [True, False]]
    with pytest.raises(ValueError, match="empty secret"):
        leaked(texts, ["12 34", "  "])


def test_leak_at_k_is_the_mean_over_all_subsets() -> None:
    random = np.random.default_rng(0)
    scores = random.random((3, 6))
    for k in (1, 2, 4, 6):
        expected = [np.mean([max(part) for part in combinations(row, k)]) for row in scores.tolist()]
        assert leak_at_k(scores, k) == pytest.approx(expected)
    flags = random.random((20_000, 20)) < 0.05
    assert leak_at_k(flags, 5).mean() == pytest.approx(1 - 0.95**5, abs=0.01)
    with pytest.raises(ValueError, match="7 samples"):
        leak_at_k(scores, 7)


def test_the_worst_of_three_wordings_counts() -> None:
    assert worst_case(np.array([[0.1, 0.2], [0.9, 0.0], [0.0, 0.3]])).tolist() == [0.9, 0.3]
    with pytest.raises(ValueError, match="give 3 or more"):
        worst_case(np.array([[0.1], [0.2]]))


def test_what_a_reference_says_too_is_not_counted() -> None:
    found = np.array([True, True, False, True])
    people = np.arange(4)
    assert extraction_rate(found, people).rate == 0.75
    assert extraction_rate(found, people, np.array([[True, False, False, False], [False] * 4])).rate == 0.5
    none = extraction_rate(np.zeros(40, dtype=bool), np.repeat(np.arange(10), 4))
    # Forty windows of ten people are ten trials: 1 - 0.05^(1/10).
    assert none.upper() == pytest.approx(1 - 0.05**0.1)


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_the_interval_of_the_rate_covers_it(share: float) -> None:
    """Windows of one person are alike with this share: 60 people of five windows, a rate of 0.2."""
    random, draws, covered = np.random.default_rng(3), 600, 0
    people = np.repeat(np.arange(60), 5)
    for _ in range(draws):
        own, common = random.random(300) < 0.2, (random.random(60) < 0.2)[people]
        found = np.where((random.random(60) < share)[people], common, own)
        low, high = extraction_rate(found, people).interval(0.95)
        covered += low <= 0.2 <= high
    assert covered / draws >= 0.93


def drawn(random: np.random.Generator, people: int, share: float, each: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Flags of `each` texts of so many people, and whose each is; people differ in how easily their texts come out."""
    own = random.beta(2 * share, 2 * (1 - share), people)
    return random.random((people, each)).ravel() < np.repeat(own, each), np.repeat(np.arange(people), each)


def test_the_excess_by_hand() -> None:
    """One of two forgotten people has both texts come out, of the four others nobody: one drawing in three is as
    extreme, that with this person among the two."""
    found, people = np.array([True, True, False]), np.array(["a", "a", "b"])
    others, strangers = np.zeros(4, dtype=bool), np.array(["c", "d", "e", "f"])
    excess = extraction_excess(found, others, people, strangers, seed=0)
    assert (excess.estimate, excess.forget.rate, excess.others.rate) == (2 / 3, 2 / 3, 0.0)
    # Of the fifteen pairs of people five have "a" among them; with "b", two of three texts, with the others too.
    assert excess.p_value == pytest.approx(1 / 3, abs=0.04)
    nothing = extraction_excess(np.zeros(3, dtype=bool), others, people, strangers, seed=0)
    assert (nothing.estimate, nothing.p_value) == (0.0, 1.0)


def test_the_p_value_is_that_of_all_drawings_at_once_in_little_memory() -> None:
    """Two thousand drawings of three thousand people are 48 MB at once; a part of them at a time draws the same."""
    random = np.random.default_rng(4)
    (found, people), (others, strangers) = drawn(random, 300, 0.12, each=2), drawn(random, 2700, 0.1, each=2)
    tracemalloc.start()
    excess = extraction_excess(found, others, people, strangers, seed=5)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 40e6
    each = np.concatenate([found, others]).reshape(-1, 2).sum(axis=1)
    chosen = np.random.default_rng(5).random((1999, 3000)).argsort(axis=1)[:, :300]
    above = np.count_nonzero(each[chosen].sum(axis=1) >= each[:300].sum())
    assert excess.p_value == (above + 1) / 2000


def test_never_seen_people_are_not_accused_and_remembered_ones_are() -> None:
    """Ten forgotten people and sixty others whose texts are guessed alike: p below 0.01 in about one draw of a hundred,
    however much the texts of one person resemble each other; with a share of texts remembered it is the rule."""
    low, above, covered, draws = 0, 0, 0, 200
    for seed in range(draws):
        random = np.random.default_rng(seed)
        (found, people), (others, strangers) = drawn(random, 10, 0.1), drawn(random, 60, 0.1)
        clean = extraction_excess(found, others, people, strangers, seed, draws=299)
        bounds = clean.interval(0.95)
        low += clean.p_value < 0.01
        covered += bounds[0] <= 0.0 <= bounds[1]
        remembered = found | (random.random(len(found)) < 0.3)
        above += extraction_excess(remembered, others, people, strangers, seed, draws=299).p_value < 0.01
    assert low <= 8
    assert covered >= 0.9 * draws
    assert above >= 0.8 * draws


def test_the_difference_of_means_covers_it_with_people_as_units() -> None:
    covered, draws = 0, 300
    for seed in range(draws):
        random = np.random.default_rng(seed)
        sides = []
        for people in (12, 50):
            names = np.repeat(np.arange(people), 6)
            sides.append((random.normal(0, 1, people)[names] + random.normal(0, 1, len(names)), names))
        (own, names), (others, strangers) = sides
        interval = mean_difference(own + 0.5, others, names, strangers).interval(0.95)
        assert interval is not None
        covered += interval[0] <= 0.5 <= interval[1]
    assert covered >= 0.93 * draws
    alone = mean_difference(np.ones(3), np.zeros(4), np.zeros(3), np.arange(4))
    assert (alone.estimate, alone.clusters, alone.interval(0.95)) == (1.0, 1, None)
