"""Records one by one: the table of smallest shifts, coverage under a common model, empirical nulls, single leaks."""

import numpy as np
import pytest

from service.verification.statistics import NotMeasurable
from workers.metrics.per_record import HeldOut, PerRecord, correlation, margin, per_record

NOBODY = HeldOut(np.array([]), np.array([]))


def measured(z: np.ndarray, held_out: HeldOut = NOBODY, references: int = 16, rho: float = 0.1) -> PerRecord:
    found = per_record(z, held_out, references, 4.0 + references - 1, rho)
    assert isinstance(found, PerRecord)
    return found


def under_one_model(draw: np.random.Generator, size: int, rho: float) -> np.ndarray:
    return np.sqrt(rho) * draw.normal() + np.sqrt(1 - rho) * draw.normal(size=size)


def apart(z: np.ndarray) -> HeldOut:
    return HeldOut(z, np.arange(len(z)))


@pytest.mark.parametrize(
    ("references", "n", "rho", "shift"),
    [
        (5, 1, 0.0, 3.3), (5, 3, 0.1, 2.1), (5, 10, 0.0, 1.05), (5, 10, 0.1, 1.45), (5, 10, 0.3, 2.0),
        (8, 1, 0.0, 2.9), (8, 3, 0.1, 1.9), (8, 10, 0.0, 0.93), (8, 10, 0.1, 1.3), (8, 10, 0.3, 1.8),
        (16, 1, 0.0, 2.7), (16, 3, 0.1, 1.7), (16, 10, 0.0, 0.85), (16, 10, 0.1, 1.2), (16, 10, 0.3, 1.6),
        (32, 1, 0.0, 2.6), (32, 3, 0.1, 1.7), (32, 10, 0.0, 0.82), (32, 10, 0.1, 1.1), (32, 10, 0.3, 1.6),
    ],
)  # fmt: skip
def test_smallest_detectable_shifts_are_those_of_the_table(references: int, n: int, rho: float, shift: float) -> None:
    """The table was simulated with a variance of its own for each record: references - 1 degrees of freedom."""
    found = per_record(np.zeros(n), NOBODY, references, references - 1, rho)
    assert isinstance(found, PerRecord)
    assert found.smallest_detectable == pytest.approx(shift, rel=0.05)


def test_by_hand() -> None:
    # se = sqrt((1 + 3 x 0.1) / 4) = 0.5701, t(0.95; 19) = 1.7291, t(0.975; 19) = 2.0930; p of z = 3: 0.00135.
    found = measured(np.array([3.0, 1.0, 0.0, -1.0]))
    assert found.estimate == 0.75
    assert found.ci == pytest.approx((0.75 - 1.7291 * 0.57009, 0.75 + 1.7291 * 0.57009), abs=1e-4)
    assert found.ci95 == pytest.approx((0.75 - 2.0930 * 0.57009, 0.75 + 2.0930 * 0.57009), abs=1e-4)
    assert found.smallest_p == pytest.approx(4 * 0.0013499, abs=1e-6)
    assert (found.share, found.margin, found.null, found.n, found.rho) == (0.25, 3.0, "student", 4, 0.1)


def test_margins_by_number_of_records() -> None:
    assert [margin(n) for n in (1, 4, 5, 19, 20, 500)] == [3.0, 3.0, 2.0, 2.0, 1.5, 1.5]


@pytest.mark.parametrize(("n", "rho"), [(1, 0.1), (3, 0.1), (10, 0.3), (40, 0.1)])
def test_intervals_cover_and_power_at_zero_is_the_share_that_passes(n: int, rho: float) -> None:
    draw = np.random.default_rng(n)
    found = [measured(under_one_model(draw, n, rho), references=32, rho=rho) for _ in range(1500)]
    for name, level in (("ci", 0.90), ("ci95", 0.95)):
        bounds = np.array([getattr(judged, name) for judged in found])
        assert np.mean((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)) == pytest.approx(level, abs=0.03)
    passed = np.mean([-judged.margin < judged.ci[0] and judged.ci[1] < judged.margin for judged in found])
    assert passed == pytest.approx(found[0].power_at_zero, abs=0.03)
    assert np.mean([judged.smallest_p < 0.01 for judged in found]) <= 0.012
    assert np.mean([judged.share for judged in found]) == pytest.approx(0.05, abs=0.01)


def test_treating_records_of_one_model_as_independent_would_not_cover() -> None:
    draw = np.random.default_rng(0)
    found = [measured(under_one_model(draw, 40, 0.1), rho=0.0).ci95 for _ in range(500)]
    assert np.mean([low <= 0 <= high for low, high in found]) < 0.75


def test_one_leaking_record_among_many_is_found_by_its_p_and_not_by_the_mean() -> None:
    draw = np.random.default_rng(1)
    z = under_one_model(draw, 30, 0.1)
    z[7] = 6.0
    found = measured(z)
    assert found.smallest_p < 0.01
    assert found.ci95[0] < 0 < found.ci95[1]
    assert measured(-z).smallest_p > 0.05  # the over-forgotten side is no member


@pytest.mark.parametrize("leak", [3.0, -3.0])
def test_a_common_leak_lies_outside_the_margin_on_its_side(leak: float) -> None:
    draw = np.random.default_rng(2)
    found = measured(under_one_model(draw, 40, 0.1) + leak)
    assert (found.ci95[0] > 1.5) if leak > 0 else (found.ci95[1] < -1.5)


def test_an_empirical_null_takes_bias_scale_and_the_common_part_out() -> None:
    """References of half the data: every z is one too low and twice too wide. Student would call it over-forgotten."""
    draw, empirical, assumed = np.random.default_rng(3), [], []
    for _ in range(300):
        z = 2.0 * under_one_model(draw, 2030, 0.2) - 1.0
        for held_out, kept in ((apart(z[30:]), empirical), (NOBODY, assumed)):
            kept.append(measured(z[:30], held_out, rho=0.0))
    assert {found.null for found in empirical} == {"empirical"}
    assert np.mean([found.ci95[0] <= 0 <= found.ci95[1] for found in empirical]) == pytest.approx(0.95, abs=0.03)
    assert np.mean([found.ci95[0] <= 0 <= found.ci95[1] for found in assumed]) < 0.3
    assert np.mean([found.smallest_p < 0.01 for found in empirical]) <= 0.03
    assert np.mean([found.smallest_p < 0.01 for found in assumed]) > 0.2
    assert np.mean([found.centre for found in empirical]) == pytest.approx(-1.0, abs=0.2)
    assert np.mean([found.scale for found in empirical]) == pytest.approx(2 * np.sqrt(0.8), rel=0.02)
    assert {(found.centre, found.scale) for found in assumed} == {(0.0, 1.0)}
    # A shift of one retrain standard deviation is two units of such a z.
    assert empirical[0].smallest_detectable == pytest.approx(2 * np.sqrt(0.8) * 2.49 * np.sqrt(17 / 16 / 30), rel=0.1)


def test_the_tail_is_that_of_the_held_out_records() -> None:
    """Heavy tails: a normal tail names records of clean sets, the fitted one hardly any; a large z is still found."""
    draw, named, normal = np.random.default_rng(4), [], []
    for _ in range(300):
        z = draw.standard_t(3, size=1220)
        found = measured(z[:20], apart(z[20:]), rho=0.0)
        named.append(found.smallest_p < 0.01)
        normal.append(measured(z[:20], rho=0.0).smallest_p < 0.01)
    assert np.mean(normal) > 0.15
    assert np.mean(named) <= 0.03
    light = draw.normal(size=1220)
    light[0] = 7.0
    assert measured(light[:20], apart(light[20:]), rho=0.0).smallest_p < 0.01


def test_ties_do_not_break_the_tail() -> None:
    z = np.repeat([-37.0, 37.0, 0.5, -0.5, 0.0], 240)
    found = measured(np.array([37.0, -37.0, 0.0]), apart(z))
    assert np.isfinite([found.estimate, *found.ci95, found.smallest_p]).all()
    assert found.smallest_p > 0.1


def test_fewer_than_a_thousand_held_out_records_are_not_a_null() -> None:
    z = np.random.default_rng(5).normal(1, 2, 1000)
    assert measured(np.zeros(3), apart(z[:999])).null == "student"
    assert measured(np.zeros(3), apart(z)).null == "empirical"


@pytest.mark.parametrize("rho", [0.0, 0.02, 0.1, 0.3])
def test_the_correlation_between_models_is_recovered(rho: float) -> None:
    draw = np.random.default_rng(6)
    groups = np.repeat(np.arange(16), 200)
    found = [
        correlation(np.concatenate([under_one_model(draw, 200, rho) for _ in range(16)]), groups) for _ in range(150)
    ]
    assert np.mean(found) == pytest.approx(rho, abs=0.01 + 0.05 * rho)
    assert min(found) >= 0.0


def test_correlation_by_hand() -> None:
    # Pairs (1, 2) and (-1, -3): products 2 and 3, mean 2.5; mean square 15 / 4.
    assert correlation(np.array([1.0, 2, -1, -3]), np.array(["a", "a", "b", "b"])) == pytest.approx(2.5 / 3.75)


def test_what_cannot_be_measured_says_so() -> None:
    many = np.random.default_rng(7).normal(size=1200)
    for found, told in (
        (per_record(np.array([]), NOBODY, 8, 11.0, 0.1), "no forgotten"),
        (per_record(np.zeros(3), apart(np.zeros(1200)), 8, 11.0, 0.1), "alike"),
        (per_record(np.zeros(3), HeldOut(many, np.zeros(1200)), 8, 11.0, 0.1), "one subject"),
        (correlation(np.array([1.0, 2, 3]), np.array([0, 0, 1])), "two groups"),
    ):
        assert isinstance(found, NotMeasurable)
        assert told in found.reason
