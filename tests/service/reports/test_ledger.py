"""The ledger adds up what was measured and nothing else; the precision ladder needs rounded readings."""

from service.reports.figures import draw_job
from service.reports.ledger import alpha_of, ledger, precision_ladder, precision_rungs, spending
from service.verification.schema import Check
from tests.service.reports import samples


def test_measured_attempts_add_up_and_exact_ones_spend_nothing() -> None:
    job = samples.evidence(published="retrain")
    rows = spending(job.attempts)
    assert [(row.alpha, row.before, row.state) for row in rows] == [(0.025, 0.0, "failed"), (0.0, 0.025, "passed")]
    both = spending(samples.evidence().attempts)
    assert [(row.alpha, row.before) for row in both] == [(0.025, 0.0), (0.025, 0.025)]
    assert ledger(both, 0.05) != ledger(rows, 0.05)


def test_the_gate_with_the_greatest_error_rate_counts() -> None:
    loose = samples.PLANTED[0].model_copy(update={"alpha": 0.05})
    told = samples.evaluation(more=[loose, samples.PLANTED[2]])
    assert alpha_of(told) == 0.05
    assert alpha_of(samples.evaluation(more=[samples.PLANTED[0]])) == 0.025
    assert alpha_of(None) == 0.0
    assert alpha_of(samples.evaluation("procedure")) == 0.0


def test_an_attempt_that_broke_off_is_a_row_that_spent_nothing() -> None:
    attempts = samples.attempts()
    broken = attempts[0].model_copy(update={"state": "error", "verification": None})
    assert [row.alpha for row in spending([broken, attempts[1]])] == [0.0, 0.025]


def test_without_a_measured_verdict_there_is_no_ledger() -> None:
    job = samples.evidence(published="retrain")
    exact = job.model_copy(update={"attempts": job.attempts[1:]})
    assert f"{samples.JOB}/ledger" not in [part.name for part, _ in draw_job(exact, None)]


def rounded(precision: str, estimate: float) -> Check:
    return samples.AUC.model_copy(
        update={"id": f"precision_{precision}", "role": "diagnostic", "estimate": estimate, "ci": None}
        | {"ci95": (estimate - 0.07, estimate + 0.07), "verdict": "info", "margin": None}
    )


def test_rungs_are_there_only_where_rounding_was_measured() -> None:
    assert precision_rungs(samples.evaluation()) == []
    bare = rounded("int8", 0.5).model_copy(update={"estimate": None, "ci95": None})
    assert precision_rungs(samples.evaluation(more=[bare])) == []
    told = samples.evaluation(more=[rounded("int4", 0.74), rounded("bf16", 0.52)])
    told.metrics.update({"precision_int4_do_nothing": 0.76, "precision_int4_retrained": [0.49, 0.51]})
    rungs = precision_rungs(told)
    assert [(rung.precision, rung.estimate, rung.original) for rung in rungs] == [
        ("as published", 0.518, 0.79), ("bf16", 0.52, None), ("int4", 0.74, 0.76),
    ]  # fmt: skip
    assert rungs[-1].retrained == (0.49, 0.51)
    assert precision_ladder(rungs) == precision_ladder(rungs)
    (part,) = (
        part
        for part, _ in draw_job(samples.with_evaluation(samples.evidence(), told), None)
        if part.name.endswith("/precision")
    )
    assert "int4 0.740" in part.alt
    assert "n = 90 and m = 300" in part.caption
