"""RMIA: uniform scores where the reference is exact, scores by hand, one reference, tuning, and what it cannot say."""

import numpy as np
import pytest

from service.verification.statistics import Auc, NotMeasurable, clustered_auc
from workers.metrics.rmia import FALLBACK, GRID, Signals, log_ratio, offline_mean, rmia, rmia_scores, tune_offline


def test_scores_by_hand() -> None:
    # Log-ratios 0, 1 and 2 against a population of -1, 0, 0 and 1: strictly above by more than log gamma.
    ratios, population = np.array([0.0, 1.0, 2.0]), np.array([-1.0, 0.0, 0.0, 1.0])
    assert rmia_scores(ratios, population).tolist() == [0.25, 0.75, 1.0]
    assert rmia_scores(ratios, population, gamma=np.exp(1.5)).tolist() == [0.0, 0.25, 0.75]


def test_the_offline_correction_by_hand() -> None:
    out = np.array([0.2, 0.6])
    assert offline_mean(out, 1.0) == pytest.approx(out)
    assert offline_mean(out, 0.0) == pytest.approx([0.6, 0.8])
    assert offline_mean(out, 0.3) == pytest.approx([0.65 * 0.2 + 0.35, 0.65 * 0.6 + 0.35])
    assert log_ratio(Signals(np.log([0.5]), np.array([0.2])), 0.0) == pytest.approx(np.log(0.5 / 0.6))
    assert np.isfinite(log_ratio(Signals(np.array([-3.0]), np.array([0.0])), 1.0)).all()


def test_scores_are_uniform_where_the_reference_is_exact_and_records_are_exchangeable() -> None:
    from scipy.stats import kstest

    draw, kept = np.random.default_rng(0), []
    for _ in range(200):
        hardness = draw.uniform(0.05, 0.95, 1050)
        probability = hardness * np.exp(0.3 * draw.normal(size=1050))  # pbar is exact up to a constant
        ratios = np.log(probability) - np.log(hardness)
        kept.append(rmia_scores(ratios[:50], ratios[50:]))
    scores = np.concatenate(kept)
    # Scores of one draw share their population, so every tenth of ten thousand is tested.
    assert kstest(scores[::10] + draw.uniform(0, 1e-3, 1000), "uniform").pvalue > 0.01
    assert scores.mean() == pytest.approx(0.5, abs=0.01)
    assert scores.var() == pytest.approx(1 / 12, abs=0.003)


def squash(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


class World:
    """Models whose logit-scaled confidence of a record is its hardness, more by `leak` where it was trained on."""

    def __init__(self, seed: int, references: int, leak: float = 1.5) -> None:
        self.draw = np.random.default_rng(seed)
        self.references, self.leak = references, leak

    def signals(self, size: int, member: bool) -> Signals:
        hardness = self.draw.normal(0, 2, size)
        phi = hardness + self.leak * member + 0.7 * self.draw.normal(size=size)
        out = squash(hardness + 0.7 * self.draw.normal(size=(self.references, size))).mean(axis=0)
        return Signals(np.log(squash(phi)), out)


def measured(world: World, member: bool, a: float = FALLBACK, size: int = 400) -> Auc:
    parts = (world.signals(size, member), world.signals(size, False), world.signals(2000, False))
    found = rmia(*parts, (np.arange(size), np.arange(size)), a)
    assert isinstance(found, Auc)
    return found


@pytest.mark.parametrize("references", [1, 2])
def test_one_or_two_references_find_what_a_threshold_for_all_does_not(references: int) -> None:
    world = World(references, references)
    forget, held_out = world.signals(2000, True), world.signals(2000, False)
    plain = clustered_auc(forget.log_probability, held_out.log_probability, np.arange(2000), np.arange(2000))
    found = rmia(forget, held_out, world.signals(5000, False), (np.arange(2000), np.arange(2000)), a=0.9)
    assert isinstance(found, Auc)
    assert found.interval(0.95)[0] > plain.interval(0.95)[1] + 0.05


def test_without_a_leak_it_reads_a_half_and_its_interval_covers() -> None:
    found = [measured(World(seed, 1), member=False, size=200) for seed in range(200)]
    assert np.mean([auc.auc for auc in found]) == pytest.approx(0.5, abs=0.006)
    covered = np.mean([auc.interval(0.95)[0] <= 0.5 <= auc.interval(0.95)[1] for auc in found])
    assert 0.91 <= covered <= 0.99


def test_a_leak_and_over_forgetting_lie_on_either_side() -> None:
    assert measured(World(0, 2), member=True).interval(0.95)[0] > 0.5
    assert measured(World(0, 2, leak=-1.5), member=True).interval(0.95)[1] < 0.5


def test_tuning_on_a_reference_takes_the_best_of_the_grid() -> None:
    world = World(3, 1)
    parts = world.signals(1500, True), world.signals(1500, False), world.signals(2000, False)
    a = tune_offline(*parts)
    assert a in GRID
    people = np.arange(1500)
    aucs = {}
    for value in GRID:
        found = rmia(*parts, (people, people), value)
        assert isinstance(found, Auc)
        aucs[value] = found.auc
    assert aucs[a] == max(aucs.values())
    assert aucs[a] > aucs[0.0] + 0.02  # and in this world the choice matters
    # What one reference teaches serves the attacked model as well.
    assert measured(World(4, 1), True, a, 2000).auc > measured(World(4, 1), True, 0.0, 2000).auc + 0.02


def test_with_too_little_to_tune_on_the_fallback_is_taken() -> None:
    world = World(5, 1)
    assert tune_offline(world.signals(9, True), world.signals(50, False), world.signals(50, False)) == FALLBACK == 0.3


def test_what_cannot_be_measured_says_so() -> None:
    world = World(6, 1)
    some, nothing = world.signals(20, False), world.signals(0, False)
    people = (np.arange(20), np.arange(20))
    unseen = Signals(some.log_probability, np.full(20, np.nan))
    for found, told in (
        (rmia(nothing, some, some, people), "no forgotten"),
        (rmia(some, some, world.signals(9, False), people), "population"),
        (rmia(unseen, some, some, people), "no reference"),
    ):
        assert isinstance(found, NotMeasurable)
        assert told in found.reason
