"""KLoM: closed forms of both forms, null values and planted shifts of the research note, a single candidate."""

import numpy as np
import pytest
from scipy.stats import entropy

from service.verification.statistics import NotMeasurable
from workers.metrics.klom import gaussian_kl, klom, klom_gaussian, klom_gaussian_null, klom_null


def test_the_divergence_of_normals() -> None:
    zero, one = np.zeros(1), np.ones(1)
    assert gaussian_kl(zero, one, zero, one)[0] == 0
    assert gaussian_kl(zero + 3, one, zero, one)[0] == pytest.approx(4.5)  # delta^2 / 2
    assert gaussian_kl(zero, 2 * one, zero, one)[0] == pytest.approx(-np.log(2) + 2 - 0.5)


@pytest.mark.parametrize(("models", "null"), [(5, 0.93), (10, 0.28), (20, 0.12), (50, 0.04), (100, 0.02)])
def test_the_null_of_identical_models_is_that_of_the_note(models: int, null: float) -> None:
    random = np.random.default_rng(0)
    found = klom_gaussian(random.normal(size=(models, 20000)), random.normal(size=(models, 20000)))
    assert found.mean() == pytest.approx(null, rel=0.2, abs=0.004)


@pytest.mark.parametrize("models", [2, 3, 8])
def test_one_candidate_that_is_a_retrain_scores_like_the_retrains_among_each_other(models: int) -> None:
    random = np.random.default_rng(1)
    level = random.normal(3, 2, 5000)
    retrained = level + random.normal(size=(models, 5000))
    candidate = klom_gaussian((level + random.normal(size=5000))[None, :], retrained)
    assert candidate.mean() == pytest.approx(0.5, rel=0.1)
    assert klom_gaussian_null(retrained).mean() == pytest.approx(0.5, rel=0.1)
    far = klom_gaussian((level + 4)[None, :], retrained)
    assert np.median(far) > 10 * np.median(candidate)


def test_retrains_that_agree_exactly_give_a_finite_number() -> None:
    same = np.zeros((3, 4))
    assert np.isfinite(klom_gaussian(np.ones((1, 4)), same)).all()
    assert klom_gaussian_null(same).max() == 0


@pytest.mark.parametrize(
    ("models", "null"), [(5, 8.0), (10, 5.6), (20, 3.0), (30, 1.8), (50, 0.86), (100, 0.34), (200, 0.14)]
)
def test_the_histogram_form_is_biased_as_the_note_says(models: int, null: float) -> None:
    random = np.random.default_rng(2)
    found = klom(random.normal(size=(models, 4000)), random.normal(size=(models, 4000)), fewest=2)
    assert isinstance(found, np.ndarray)
    assert found.mean() == pytest.approx(null, rel=0.1)  # theirs leaves the largest margin out


@pytest.mark.parametrize(("shift", "mean"), [(0.5, 0.53), (1, 1.17), (2, 3.57), (4, 8.59)])
def test_a_planted_shift_at_a_hundred_models_a_side(shift: float, mean: float) -> None:
    random = np.random.default_rng(3)
    found = klom(random.normal(shift, 1, (100, 3000)), random.normal(size=(100, 3000)))
    assert isinstance(found, np.ndarray)
    assert found.mean() == pytest.approx(mean, rel=0.1)


def test_with_many_models_the_histogram_nears_the_gaussian_limit() -> None:
    random = np.random.default_rng(4)
    found = klom(random.normal(1, 1, (40000, 20)), random.normal(size=(40000, 20)))
    assert isinstance(found, np.ndarray)
    # delta^2 / 2, less what 20 bins over some eight standard deviations blur
    assert found.mean() == pytest.approx(0.5, abs=0.03)


def test_the_histogram_is_numpys_and_the_divergence_scipys() -> None:
    random = np.random.default_rng(6)
    unlearned, retrained = random.normal(0.7, 2, (70, 40)), random.normal(size=(90, 40))
    found = klom(unlearned, retrained)
    assert isinstance(found, np.ndarray)
    for record in range(40):
        sides = unlearned[:, record], retrained[:, record]
        reach = min(side.min() for side in sides), max(side.max() for side in sides)
        p, q = (np.histogram(side, bins=20, range=reach)[0] / len(side) for side in sides)
        assert found[record] == pytest.approx(entropy(p, np.where(p > 0, np.maximum(q, 1e-5), q)))


def test_the_histogram_by_hand() -> None:
    retrained = np.repeat([0.0, 20.0], 25)[:, None]  # bins 0 and 19, half each
    unlearned = np.repeat([0.0, 10.0], 25)[:, None]  # half of it where no retrained model is
    found = klom(unlearned, retrained)
    assert isinstance(found, np.ndarray)
    total = 1 + 1e-5
    expected = 0.5 * np.log(0.5 / (0.5 / total)) + 0.5 * np.log(0.5 / (1e-5 / total))
    assert found[0] == pytest.approx(expected)
    assert klom(np.full((50, 1), 20.0), retrained)[0] == pytest.approx(np.log(2))  # type: ignore[index]
    assert klom(np.full((50, 1), 1e9), np.full((50, 1), 3e9))[0] == 0  # type: ignore[index]


def test_the_null_of_the_histogram_is_that_of_a_candidate_that_is_a_retrain() -> None:
    random = np.random.default_rng(5)
    level = random.normal(3, 2, 800)
    draw = lambda models: level + random.normal(size=(models, 800))  # noqa: E731
    floor, same = klom_null(draw(120), 60, seed=0), klom(draw(60), draw(60))
    assert isinstance(floor, np.ndarray)
    assert isinstance(same, np.ndarray)
    assert floor.mean() == pytest.approx(same.mean(), rel=0.05)
    retrained = draw(60)
    one, alone = klom(draw(1), retrained), klom_null(retrained, 1, seed=0)
    far = klom((level + 4)[None, :], retrained)
    assert isinstance(one, np.ndarray)
    assert isinstance(alone, np.ndarray)
    assert isinstance(far, np.ndarray)
    assert alone.shape == (60, 800)
    assert one.mean() == pytest.approx(alone.mean(), rel=0.1)
    assert np.median(far) > 3 * np.median(alone)
    assert far.max() <= -np.log(1e-5) + 1e-4


@pytest.mark.parametrize(("unlearned", "retrained"), [(49, 60), (60, 49), (1, 49), (2, 60)])
def test_too_few_models_for_a_histogram_are_said_so(unlearned: int, retrained: int) -> None:
    found = klom(np.zeros((unlearned, 3)), np.zeros((retrained, 3)))
    assert isinstance(found, NotMeasurable)
    assert "50 models" in found.reason
    assert isinstance(klom_null(np.zeros((99, 3)), 50, 0), NotMeasurable)
    assert isinstance(klom_null(np.zeros((49, 3)), 1, 0), NotMeasurable)
