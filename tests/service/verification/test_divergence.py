"""The Jensen-Shannon divergence against SciPy's and by hand, and what it refuses."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from service.verification.divergence import jensen_shannon


def test_it_is_the_square_of_scipys_distance() -> None:
    random = np.random.default_rng(0)
    first, second = random.dirichlet(np.full(7, 0.3), 50), random.dirichlet(np.ones(7), 50)
    expected = [jensenshannon(p, q, base=2) ** 2 for p, q in zip(first, second, strict=True)]
    assert jensen_shannon(first, second) == pytest.approx(np.array(expected))
    assert jensen_shannon(np.stack([first, first]), np.stack([second, first])).shape == (2, 50)


def test_it_is_zero_for_the_same_and_one_for_disjoint_distributions() -> None:
    corner = np.eye(3)
    assert jensen_shannon(corner, corner).tolist() == [0, 0, 0]
    assert jensen_shannon(corner, np.roll(corner, 1, axis=1)).tolist() == [1, 1, 1]
    half = jensen_shannon(np.array([[1.0, 0]]), np.array([[0.5, 0.5]]))[0]
    assert half == pytest.approx((np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) / 2)


@pytest.mark.parametrize("second", [[[0.5, 0.6]], [[1.5, -0.5]], [[1.0]], [[np.nan, 1.0]]])
def test_what_is_no_distribution_is_refused(second: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="distributions"):
        jensen_shannon(np.array([[0.5, 0.5]]), np.array(second))
