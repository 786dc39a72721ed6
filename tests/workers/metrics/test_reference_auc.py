"""Calibrated membership AUC: closed forms, shrinkage, and a true retrain that an affine correction would fail."""

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pytest

from service.verification.statistics import NotMeasurable
from workers.metrics.reference_auc import (
    Judged,
    ReferenceAuc,
    calibrated_scores,
    monotone_correction,
    nearest,
    pooled_variance,
    reference_auc,
)

NORMAL = NormalDist()


def auc_of(members: np.ndarray, others: np.ndarray) -> float:
    ranks = np.concatenate([members, others]).argsort().argsort()[: len(members)] + 1.0
    return float((ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(others)))


def tpr(members: np.ndarray, others: np.ndarray, rate: float) -> float:
    return float(np.mean(members > np.quantile(others, 1 - rate)))


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_finite_references_of_known_variance_follow_the_closed_form(count: int) -> None:
    """AUC = Phi(mu / sqrt(2 (1 + 1/K))), TPR = Phi(z_f + mu / sqrt(1 + 1/K))."""
    draw, size, shift = np.random.default_rng(count), 200_000, 2.0
    hardness = 3.0 * draw.normal(size=2 * size)
    mean = hardness + draw.normal(size=2 * size) / np.sqrt(count)
    scores = hardness + draw.normal(size=2 * size)
    scores[:size] += shift
    ones = np.ones(2 * size)
    z = calibrated_scores(scores, mean, ones, count * ones, pooled=1.0)[1]
    assert auc_of(z[:size], z[size:]) == pytest.approx(NORMAL.cdf(shift / np.sqrt(2 * (1 + 1 / count))), abs=3e-3)
    expected = NORMAL.cdf(NORMAL.inv_cdf(0.01) + shift / np.sqrt(1 + 1 / count))
    assert tpr(z[:size], z[size:], 0.01) == pytest.approx(expected, abs=8e-3)
    # Without references the difficulty of the records hides what the attack is after: 0.6726 for mu = 2, tau = 3.
    assert auc_of(scores[:size], scores[size:]) == pytest.approx(NORMAL.cdf(shift / np.sqrt(20)), abs=4e-3)


@pytest.mark.parametrize("count", [8, 16, 64])
def test_shrunk_variance_finds_more_than_either_alternative(count: int) -> None:
    """At a false-positive rate of 0.1 %, on records whose spread differs."""
    draw, size = np.random.default_rng(0), 500_000
    deviation = np.exp(0.4 * draw.normal(size=2 * size))
    mean = deviation * draw.normal(size=2 * size) / np.sqrt(count)
    variance = np.square(deviation) * draw.chisquare(count - 1, 2 * size) / (count - 1)
    scores = deviation * draw.normal(size=2 * size)
    scores[:size] += 2 * deviation[:size]
    counts = np.full(2 * size, float(count))
    pooled = pooled_variance(variance, counts)
    found = {}
    for name, weight in (("own", 1e-6), ("shrunk", 4.0), ("pooled", 1e9)):
        z = calibrated_scores(scores, mean, variance, counts, pooled, weight)[1]
        found[name] = tpr(z[:size], z[size:], 0.001)
    assert found["shrunk"] >= max(found["own"], found["pooled"]), found


def test_probabilities_are_uniform_where_the_record_was_never_seen() -> None:
    """Student's predictive distribution with the record's own variance, exact for normal scores: weight near 0."""
    draw, size, count = np.random.default_rng(1), 100_000, 6
    references = draw.normal(size=(size, count))
    probability, z = calibrated_scores(
        draw.normal(size=size),
        references.mean(axis=1),
        references.var(axis=1, ddof=1),
        np.full(size, float(count)),
        pooled=1.0,
        prior_weight=1e-9,
    )
    levels = np.linspace(0.01, 0.99, 21)
    assert np.abs(np.quantile(probability, levels) - levels).max() < 6e-3
    assert abs(float(z.std()) - 1) < 0.01


def test_hand_computed_score() -> None:
    # s^2 = (4 x 2 + 3 x 9) / 7 = 5, t = (6 - 1) / sqrt(5 x 1.25) = 2, seven degrees of freedom: P(T < 2) = 0.9572.
    probability, z = calibrated_scores(*(np.array([value]) for value in (6.0, 1.0, 9.0, 4.0)), pooled=2.0)
    assert probability[0] == pytest.approx(0.957190, abs=1e-5)
    assert z[0] == pytest.approx(NORMAL.inv_cdf(0.957190), abs=1e-4)


def test_far_scores_keep_their_order_and_stay_finite() -> None:
    at = np.array([-1e9, -50.0, 0.0, 50.0, 1e9])
    ones = np.ones(5)
    probability, z = calibrated_scores(at, 0 * ones, ones, 9 * ones, pooled=1.0)
    assert np.all(np.diff(z) > 0)
    assert np.isfinite(z).all()
    assert probability[2] == 0.5


def test_pooled_variance_weighs_by_degrees_of_freedom() -> None:
    pooled = pooled_variance(np.array([1.0, 4.0, np.nan, np.nan]), np.array([2.0, 3.0, 1.0, 0.0]))
    assert pooled == pytest.approx((1 * 1 + 2 * 4) / 3)


def test_nearest_are_the_nearest() -> None:
    draw = np.random.default_rng(0)
    reference, at = draw.normal(size=60), np.concatenate([draw.normal(size=20), [-9.0, 9.0]])
    for row, chosen in enumerate(nearest(reference, at, 25)):
        expected = np.argsort(np.abs(reference - at[row]))[:25]
        assert set(chosen.tolist()) == set(expected.tolist())
    assert set(nearest(reference[:25], at[:1], 25)[0].tolist()) == set(range(25))


def test_the_monotone_correction_recovers_a_curve_that_a_line_cannot() -> None:
    draw = np.random.default_rng(0)
    reference = draw.uniform(-6, 6, 4000)
    served = np.where(reference < 0, 2.5 * reference, reference) + draw.normal(size=4000)
    at = np.array([-5.0, -3.0, 0.0, 3.0, 5.0])
    curve = np.array([-12.5, -7.5, 0.0, 3.0, 5.0])
    assert np.abs(monotone_correction(reference, served, at) - curve).max() < 0.5
    line = np.polyval(np.polyfit(reference, served, 1), at)
    assert np.abs(line - curve).max() > 1.5


@dataclass(frozen=True)
class World:
    """Records of two kinds: right labels (easy) and wrong ones (hard); references of half the data are less sure.

    A served model scores a never-seen record by a bent curve of its hardness: steeper among the hard ones, as models
    of more data are. `leak` raises forgotten records, in standard deviations.
    """

    seed: int
    count: int = 8
    per_subject: int = 1
    likeness: float = 0.0

    def part(self, name: str, size: int, hard: float, leak: float = 0.0) -> Judged:
        draw = np.random.default_rng([self.seed, *name.encode()])
        wrong = draw.random(size) < hard
        hardness = np.where(wrong, draw.normal(-4, 2, size), draw.normal(5, 2, size))
        deviation = 0.5 + 0.2 * np.abs(hardness)
        references = (0.75 * hardness - 0.3)[:, None] + deviation[:, None] * draw.normal(size=(size, self.count))
        owner = np.arange(size) // self.per_subject
        common = draw.normal(size=owner[-1] + 1)[owner]
        noise = np.sqrt(self.likeness) * common + np.sqrt(1 - self.likeness) * draw.normal(size=size)
        served = np.where(hardness < 0, 1.6 * hardness, 1.05 * hardness + 0.3) + deviation * (noise + leak)
        variance = references.var(axis=1, ddof=1) if self.count > 1 else np.full(size, np.nan)
        count = np.full(size, float(self.count))
        return Judged(served, references.mean(axis=1), variance, count, np.char.add(name, owner.astype(str)))


def measured(world: World, hard: float, leak: float = 0.0, size: int = 50, held_out: int = 500) -> ReferenceAuc:
    found = reference_auc(world.part("forget", size, hard, leak), world.part("held out", held_out, 0.15))
    assert isinstance(found, ReferenceAuc)
    return found


def affine_auc(world: World, hard: float) -> float:
    """What one affine map over all held-out records would read."""
    forget, held_out = world.part("forget", 50, hard), world.part("held out", 500, 0.15)
    line = np.polyfit(held_out.mean, held_out.scores, 1)
    pooled = pooled_variance(held_out.variance, held_out.count)
    left, others = (
        calibrated_scores(part.scores, np.polyval(line, part.mean), part.variance, part.count, pooled)[1]
        for part in (forget, held_out)
    )
    return auc_of(left, others)


@pytest.mark.parametrize("hard", [0.15, 1.0])
def test_a_true_retrain_reads_a_half_and_the_original_does_not(hard: float) -> None:
    null = [measured(World(seed), hard).auc.auc for seed in range(40)]
    planted = [measured(World(seed), hard, leak=2.0) for seed in range(40)]
    assert np.mean(null) == pytest.approx(0.5, abs=0.03)
    assert np.mean([found.auc.auc for found in planted]) > 0.8
    assert all(found.auc.interval(0.95)[0] > 0.5 for found in planted)


def test_an_affine_correction_and_a_population_attack_fail_the_same_retrain_on_hard_records() -> None:
    assert np.mean([affine_auc(World(seed), 1.0) for seed in range(40)]) < 0.42
    forget, held_out = World(0).part("forget", 50, 1.0), World(0).part("held out", 500, 0.15)
    assert auc_of(forget.scores, held_out.scores) < 0.15
    # And the leak of the original hides from the population attack entirely.
    leaked = World(0).part("forget", 50, 1.0, leak=2.0)
    assert auc_of(leaked.scores, held_out.scores) < 0.2


@pytest.mark.parametrize(("hard", "size"), [(0.15, 200), (1.0, 100)])
def test_intervals_cover_a_half_when_records_of_a_subject_are_alike(hard: float, size: int) -> None:
    worlds = [World(seed, per_subject=5, likeness=0.3) for seed in range(200)]
    intervals = [measured(world, hard, size=size).auc.interval(0.95) for world in worlds]
    covered = np.mean([low <= 0.5 <= high for low, high in intervals])
    assert 0.90 <= covered <= 0.99


def one_class_forgotten(seed: int, held_out: int = 600) -> tuple[Judged, Judged]:
    """A model retrained without class 3 knows none of its records, forgotten or held out; references knew the class."""
    forget, others = World(seed).part("forget", 60, 0.15), World(seed).part("held out", held_out, 0.15)
    labels = np.arange(held_out) % 10
    draw = np.random.default_rng(seed)
    third = labels == 3
    unknown = (draw.normal(-8, 1, len(forget)), draw.normal(-8, 1, int(third.sum())))
    served = others.scores.copy()
    served[third] = unknown[1]
    left = replace(forget, scores=unknown[0], strata=np.full(len(forget), 3))
    return left, replace(others, scores=served, strata=labels)


def test_a_retrain_without_a_whole_class_is_compared_within_the_class() -> None:
    found, alike = [], []
    for seed in range(30):
        forget, held_out = one_class_forgotten(seed)
        for answers, strata in ((found, held_out.strata), (alike, None)):
            answer = reference_auc(forget, replace(held_out, strata=strata))
            assert isinstance(answer, ReferenceAuc)
            answers.append(answer.auc)
    assert np.mean([auc.auc for auc in found]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([auc.interval(0.95)[0] <= 0.5 <= auc.interval(0.95)[1] for auc in found]) > 0.8
    assert all(auc.m <= 60 for auc in found)
    assert np.mean([auc.auc for auc in alike]) < 0.15


def test_a_class_with_too_few_held_out_records_is_compared_with_all() -> None:
    forget, held_out = one_class_forgotten(0, held_out=90)  # nine of each class
    found = reference_auc(forget, held_out)
    assert isinstance(found, ReferenceAuc)
    assert found.auc.m > 9


def test_what_it_rests_on_is_told() -> None:
    found = measured(World(0), 0.15)
    assert found.references == 8
    assert found.outside == 0.0
    assert found.auc.clusters[0] == found.auc.n == 50
    assert found.auc.m <= 500
    assert found.auc.auc == pytest.approx(found.ranks.mean())
    forget, held_out = World(0).part("forget", 50, 0.15), World(0).part("held out", 100, 0.0)
    beyond = reference_auc(Judged(forget.scores, forget.mean - 30, *rest(forget)), held_out)
    assert isinstance(beyond, ReferenceAuc)
    assert beyond.outside == 1.0


def rest(part: Judged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return part.variance, part.count, part.subjects


def test_what_cannot_be_measured_says_so() -> None:
    world = World(0)
    forget, held_out = world.part("forget", 50, 0.15), world.part("held out", 24, 0.15)
    for found, told in (
        (reference_auc(forget, held_out), "takes 25 held-out records"),
        (reference_auc(world.part("forget", 50, 0.15), World(0, count=4).part("held out", 99, 0.15)), "unequal"),
        (reference_auc(World(0, count=1).part("f", 9, 0.1), World(0, count=1).part("h", 99, 0.1)), "fewer than two"),
    ):
        assert isinstance(found, NotMeasurable)
        assert told in found.reason
