"""The forest plot: rows are those that decided, bands are what the verdict compares with, words stand beside shapes."""

import pytest

from service.reports.forest import Row, forest, forest_rows
from service.verification.policy import VerificationPolicy
from service.verification.schema import Check
from service.verification.verdict import PERPLEXITY, decide
from tests.service.reports import samples

RULES = VerificationPolicy()


def row(check: Check) -> Row:
    told = samples.evaluation(more=[check])
    return next(row for row in forest_rows(told, RULES) if row.check.id == check.id)


def text(name: str, estimate: float, margin: float) -> Check:
    """A check on language models."""
    near, far = (estimate - 0.01, estimate + 0.01), (estimate - 0.02, estimate + 0.02)
    return Check(
        id=name, role="gate", statistic="bits or share", estimate=estimate, alpha=0.05, ci=near, ci95=far,
        margin=margin, n=90, m=600,
    )  # fmt: skip


def test_what_comes_out_of_language_models_has_panels_of_its_own() -> None:
    more = [text("extraction_strength", 0.2, 0.1), text("canary_exposure", 1.5, 2.4)]
    rows = forest_rows(samples.evaluation(more=more), RULES)
    assert [row.kind for row in rows] == ["auc", "texts", "bits", "accuracy"]
    drawn = forest(rows)
    assert drawn.startswith(b"<svg")
    assert drawn != forest([row for row in rows if row.kind != "bits"])


def test_gates_and_measured_attacks_are_rows_and_controls_are_marks() -> None:
    told = samples.evaluation(reference={}, more=[*samples.PLANTED, *samples.SINGLE])
    rows = forest_rows(told, RULES)
    assert [row.check.id for row in rows] == [
        "membership_auc", "reference_auc", "companion_canaries", "per_record", "companion_rate", "utility",
    ]  # fmt: skip
    before = {row.check.id: row.before for row in rows}
    assert before == {
        "membership_auc": 0.79, "companion_canaries": 0.889, "reference_auc": 0.81, "per_record": 4.1,
        "companion_rate": None, "utility": None,
    }  # fmt: skip
    assert [row.check.id for row in rows if row.check.role == "gate"] == [
        "reference_auc", "companion_canaries", "companion_rate", "utility",
    ]  # fmt: skip


def test_a_check_without_an_interval_is_no_row() -> None:
    told = samples.evaluation(estimate=None, ci=None, ci95=None)
    assert [row.check.id for row in forest_rows(told, RULES)] == ["utility"]


@pytest.mark.parametrize(
    ("check", "allowed"),
    [
        (samples.PLANTED[0], (0.4, 0.6)),
        (samples.PLANTED[1], (None, 0.15)),
        (samples.SINGLE[0], (-2.0, 2.0)),
        (text("canary_exposure", 1.5, 2.4), (0.9, 2.4)),
        (text("value_exposure", 1.5, 2.4), (None, 2.4)),
        (text("extraction_excess", 0.01, 0.1), (None, 0.1)),
        (text("extraction_strength", 0.01, 0.1), (None, 0.1)),
    ],
)
def test_the_band_is_what_the_verdict_compares_with(check: Check, allowed: tuple[float | None, float | None]) -> None:
    found = row(check).allowed
    assert found == pytest.approx(allowed, nan_ok=True) if None not in allowed else found == allowed


@pytest.mark.parametrize(
    ("estimate", "half", "verdict"), [(0.5, 0.05, "pass"), (0.5, 0.2, "inconclusive"), (0.75, 0.05, "fail")]
)
def test_inside_the_band_is_a_pass_and_outside_a_fail(estimate: float, half: float, verdict: str) -> None:
    bounds = (estimate - half, estimate + half)
    told = samples.evaluation(estimate=estimate, ci=bounds, ci95=bounds)
    (found,) = (row for row in forest_rows(told, RULES) if row.check.id == "membership_auc")
    low, high = found.allowed
    assert low is not None
    assert high is not None
    assert found.check.verdict == verdict
    assert (low < bounds[0] and bounds[1] < high) == (verdict == "pass")
    assert (bounds[0] > high or bounds[1] < low) == (verdict == "fail")


def test_losses_of_utility_are_bounded_on_one_side_alone() -> None:
    told = samples.evaluation()
    (accuracy,) = (row for row in forest_rows(told, RULES) if row.check.id == "utility")
    assert accuracy.allowed == (-0.04, None)
    ratio = accuracy.check.model_copy(
        update={"statistic": PERPLEXITY, "estimate": 1.02, "ci": (0.99, 1.05), "ci95": (0.98, 1.06), "margin": 1.1}
    )
    changed = told.model_copy(update={"checks": [ratio if check.id == "utility" else check for check in told.checks]})
    assert next(row for row in forest_rows(changed, RULES) if row.check.id == "utility").allowed == (None, 1.1)


def test_drawing_is_the_same_twice_and_differs_with_the_verdict() -> None:
    passing = forest_rows(samples.evaluation(reference={}, more=[*samples.PLANTED, *samples.SINGLE]), RULES)
    failing = forest_rows(samples.evaluation(estimate=0.75, ci=(0.7, 0.8), ci95=(0.69, 0.81)), RULES)
    assert forest(passing) == forest(passing)
    assert forest(failing).startswith(b"<svg")
    assert decide([row.check for row in failing], "measurement")[0] == "fail"
