"""The power curve: it meets the check it is drawn for, agrees with published sizes, and says when nothing is found."""

import math
from statistics import NormalDist

import pytest

from service.reports.captions import smallest_effects
from service.reports.power import curve_of, power_curve, shift_as_auc
from service.verification.policy import Policy
from service.verification.statistics import auc_design
from tests.service.reports import samples

MARGINS = Policy().verification.auc_margin


def alone(n: int, m: int = 2000, alpha: float = 0.05) -> float:
    check = samples.AUC.model_copy(
        update={"n": n, "m": m, "alpha": alpha, "clusters": (n, m), "smallest_detectable": None}
    )
    curve = curve_of(check)
    assert curve is not None
    size, found = curve.smallest_alone(n)
    assert size == n
    assert found is not None
    return 0.5 + found


@pytest.mark.parametrize(("n", "auc"), [(20, 0.66), (50, 0.60), (100, 0.57), (200, 0.55), (500, 0.54), (1000, 0.53)])
def test_the_curve_agrees_with_the_normal_approximation(n: int, auc: float) -> None:
    """(z_.95 + z_.80) sqrt((m + n + 1) / 12 m n); Student's t adds a little where there are few people."""
    z = NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.8)
    closed = 0.5 + z * math.sqrt((2000 + n + 1) / (12 * 2000 * n))
    assert closed == pytest.approx(auc, abs=0.006)
    assert closed <= alone(n) < closed + 0.15 / n


@pytest.mark.parametrize(("n", "people", "effect"), [(90, 12, 3.2), (40, 40, 1.0), (400, 25, 6.0)])
def test_the_curve_meets_the_check(n: int, people: int, effect: float) -> None:
    found = auc_design(n, 300, (effect, effect), (people, 40)).smallest_detectable(0.025)
    curve = curve_of(samples.AUC.model_copy(update={"n": n, "clusters": (people, 40), "smallest_detectable": found}))
    assert curve is not None
    assert curve.effect == pytest.approx(effect)
    size, smallest = curve.smallest(people)
    assert size == n
    assert smallest == pytest.approx(found)


def test_more_people_find_less_and_one_person_nothing() -> None:
    curve = curve_of(samples.AUC)
    assert curve is not None
    sizes = [curve.smallest(people) for people in (4, 8, 16, 32, 64)]
    found = [value for _, value in sizes if value is not None]
    assert len(found) == 5
    assert found == sorted(found, reverse=True)
    assert [n for n, _ in sizes] == [30, 60, 120, 240, 480]
    assert curve.smallest(1)[1] is None


def test_what_was_not_measured_has_no_curve() -> None:
    assert curve_of(None) is None
    bare = samples.AUC.model_copy(update={"m": 0})
    assert curve_of(bare) is None
    assert power_curve(bare, MARGINS, None, "") is None


def test_nothing_detectable_is_said_and_drawn() -> None:
    few = samples.AUC.model_copy(update={"n": 3, "clusters": (1, 40), "smallest_detectable": None, "margin": None})
    drawn = power_curve(few, MARGINS, None, "words")
    assert drawn is not None
    assert drawn != power_curve(samples.AUC, MARGINS, None, "words")
    told = samples.evaluation(n=3, clusters=(1, 40), smallest_detectable=None, margin=None)
    assert smallest_effects(told) == ["this request, n = 3: no AUC at all could have been found"]


def test_effects_of_all_attacks_are_told() -> None:
    told = samples.evaluation(more=[*samples.PLANTED, *samples.SINGLE])
    assert smallest_effects(told) == [
        "this request, n = 90: AUC 0.59 or 0.41",
        "planted records, c = 73: AUC 0.60 or 0.40",
        "record by record, n = 12: mean shift of 1.10 standard deviations (AUC 0.78)",
    ]
    assert shift_as_auc(1.0) == pytest.approx(0.7602, abs=1e-4)
    assert shift_as_auc(0.0) == 0.5


def test_the_same_bytes_twice_whatever_the_policy_allows() -> None:
    canaries = samples.PLANTED[0]
    assert power_curve(samples.AUC, {"9000": 0.02}, canaries, "x") == power_curve(
        samples.AUC, {"9000": 0.02}, canaries, "x"
    )
