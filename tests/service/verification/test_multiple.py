"""Many tests and many attempts: hand-computed adjustments, and how often each errs by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from service.verification.equivalence import equivalence
from service.verification.multiple import benjamini_hochberg, holm, split_alpha, worth_a_look

P_VALUES = arrays(float, st.integers(1, 30), elements=st.floats(0, 1))


def test_a_small_example_by_hand() -> None:
    found = np.array([0.01, 0.04, 0.03, 0.005])
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling; and times 4/1, 4/2, 4/3, 4/4, never rising back.
    assert holm(found) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(found) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert worth_a_look(found, 0.03) == [3, 0]
    assert worth_a_look(found, 0.001) == []
    assert holm(np.array([])).size == 0


@given(P_VALUES)
def test_holm_lies_between_no_and_full_bonferroni_and_keeps_the_order(found: np.ndarray) -> None:
    adjusted = holm(found)
    assert np.all((found <= adjusted) & (adjusted <= np.minimum(1, found * len(found)) + 1e-12))
    assert np.all(np.diff(adjusted[np.argsort(found, kind="stable")]) >= 0)
    assert np.all(benjamini_hochberg(found) <= adjusted + 1e-12)


@given(P_VALUES)
def test_benjamini_hochberg_is_scipys(found: np.ndarray) -> None:
    assert benjamini_hochberg(found) == pytest.approx(stats.false_discovery_control(found), rel=1e-12)


def test_holm_errs_at_all_in_one_of_twenty_also_where_some_records_leak() -> None:
    random = np.random.default_rng(1)
    shared = random.normal(size=(4000, 1))
    for rho in (0.0, 0.5):
        z = math.sqrt(rho) * shared + math.sqrt(1 - rho) * random.normal(size=(4000, 20))
        z[:, :3] += 4
        adjusted = np.array([holm(row) for row in stats.norm.sf(z)])
        erred = (adjusted[:, 3:] < 0.05).any(1).mean()
        assert erred <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
        assert (adjusted[:, :3] < 0.05).mean() > 0.75


def test_a_list_to_look_at_holds_no_greater_share_of_false_entries() -> None:
    random = np.random.default_rng(2)
    z = random.normal(size=(2000, 50))
    z[:, :10] += 3
    shares = []
    for row in stats.norm.sf(z):
        listed = worth_a_look(row, 0.1)
        shares.append(sum(at >= 10 for at in listed) / max(1, len(listed)))
    # Expectation 0.1 x 40 / 50 for independent tests (Benjamini and Hochberg 1995, theorem 1).
    assert np.mean(shares) == pytest.approx(0.08, abs=0.012)


def test_trying_again_inflates_false_passes_and_splitting_alpha_does_not() -> None:
    # Candidates exactly at the margin: noise passes each attempt with 5 %, one of five with 1 - 0.95^5 = 22.6 %.
    random, attempts, margin, se = np.random.default_rng(3), 5, 0.05, 0.01
    estimates = margin + se * random.normal(size=(8000, attempts))

    def passed(alpha: float) -> float:
        # A pass falls with the estimate's distance from 0, so that one comparison stands for the test of each.
        best = np.abs(estimates).min(1)
        return float(np.mean([equivalence(value, se, math.inf, margin, alpha).outcome == "pass" for value in best]))

    assert passed(0.05) == pytest.approx(1 - 0.95**attempts, abs=0.015)
    assert passed(split_alpha(0.05, attempts)) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 8000)


def test_what_cannot_be_split_or_is_no_p_value_is_refused() -> None:
    assert split_alpha(0.05, 3) == pytest.approx(0.0167, abs=5e-5)
    with pytest.raises(ValueError, match="attempts"):
        split_alpha(0.05, 0)
    for wrong in ([0.5, 1.5], [-0.1], [math.nan, 0.2]):
        for function in (holm, benjamini_hochberg):
            with pytest.raises(ValueError, match="p-values"):
                function(np.array(wrong))
