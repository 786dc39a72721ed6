"""Entanglement by hand, its closed form, the correction for small sets, and random sets that have no score."""

import math

import numpy as np
import pytest

from service.verification.statistics import Array, Clusters
from workers.metrics.entanglement import Entanglement, entanglement


def score(forget: Array, retain: Array, people: Clusters | None = None) -> Entanglement:
    found = entanglement(forget, retain, np.arange(len(forget)) if people is None else people, np.arange(len(retain)))
    assert isinstance(found, Entanglement)
    return found


def test_by_hand() -> None:
    forget, retain = np.array([[9.0, 0], [11, 0]]), np.array([[0.0, 1], [0, -1], [0, 2], [0, -2]])
    # Spreads 1 and 2.5, means 10 apart; chance: 2 / 4 * 2 and 10 / 16 * 4 / 3.
    found = score(forget, retain)
    assert found.published == pytest.approx(4 * 3.5 / 100)
    assert found.corrected == pytest.approx(4 * 3.5 / (100 - 1 - 10 / 12))
    assert found.log == pytest.approx(math.log(found.corrected))


def test_it_is_the_papers_ratio_with_the_midpoint_and_knows_no_scale() -> None:
    random = np.random.default_rng(0)
    forget, retain = random.normal(1, 1, (50, 6)), random.normal(0, 2, (400, 6))
    means = forget.mean(axis=0), retain.mean(axis=0)
    middle = (means[0] + means[1]) / 2
    within = sum(np.square(part - mean).sum(axis=1).mean() for part, mean in zip((forget, retain), means, strict=True))
    between = 0.5 * sum(np.square(mean - middle).sum() for mean in means)
    assert score(forget, retain).published == pytest.approx(within / between)
    moved = score(7 * forget + 3, 7 * retain + 3)
    assert moved.corrected == pytest.approx(score(forget, retain).corrected)


@pytest.mark.parametrize("size", [10, 30, 100])
def test_the_correction_takes_out_the_bias_of_small_sets(size: int) -> None:
    random, dimensions, away = np.random.default_rng(1), 64, 4
    truth = 4 * 2 * dimensions / away**2
    found = []
    for _ in range(200):
        forget = random.normal(size=(size, dimensions))
        forget[:, 0] += away
        found.append(score(forget, random.normal(size=(1000, dimensions))))
    corrected = np.mean([one.corrected**-1 for one in found]) ** -1
    published = np.mean([one.published**-1 for one in found]) ** -1
    # The sample's own spread is (n - 1) / n of the truth's.
    assert corrected == pytest.approx(truth * (1 - 0.5 / size), rel=0.05)
    assert published < truth / (1 + 0.8 * dimensions / size / away**2)


def test_people_with_many_records_count_once() -> None:
    random = np.random.default_rng(2)
    people = np.repeat(np.arange(20), 10)
    forget = random.normal(size=(20, 32))[people] + 0.1 * random.normal(size=(200, 32))
    forget[:, 0] += 3
    retain = random.normal(size=(1000, 32))
    assert score(forget, retain, people).corrected > 1.1 * score(forget, retain).corrected


def test_harder_requests_score_higher() -> None:
    random = np.random.default_rng(3)
    retain = random.normal(size=(500, 16))
    found = [score(random.normal(size=(80, 16)) + away, retain).corrected for away in (4, 2, 1, 0.5)]
    assert found == sorted(found)


def test_random_sets_mostly_have_no_score() -> None:
    random = np.random.default_rng(4)
    data = random.normal(size=(600, 64))
    drawn = [random.permutation(600) for _ in range(200)]
    found = [entanglement(data[rows[:40]], data[rows[40:]], rows[:40], rows[40:]) for rows in drawn]
    assert np.mean([isinstance(one, Entanglement) for one in found]) < 0.02


def test_one_person_has_none() -> None:
    random = np.random.default_rng(5)
    found = entanglement(random.normal(size=(9, 3)), random.normal(5, 1, (9, 3)), np.zeros(9), np.arange(9))
    assert not isinstance(found, Entanglement)
    assert "subject" in found.reason
