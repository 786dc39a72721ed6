"""Gaussian KLoM: the closed form, the null values of the research note, and its use with a single candidate."""

import numpy as np
import pytest

from workers.metrics.klom import gaussian_kl, klom_gaussian, klom_gaussian_null


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
