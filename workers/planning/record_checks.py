"""Forgotten records one by one, each against models that never saw it: for requests too small for a population."""

from typing import Any

from service.verification.schema import Check
from service.verification.statistics import NotMeasurable
from service.verification.verdict import PER_RECORD, RECORD_CONTROL
from workers.metrics.per_record import HeldOut, PerRecord, correlation, per_record
from workers.metrics.reference_auc import PRIOR_WEIGHT, Judged, pooled_variance, unexplained
from workers.planning.calibrated import Calibration, judged_sets, rejudged
from workers.planning.comparisons import Line
from workers.planning.score_tables import FORGET, HELD_OUT, ModelScores

STATISTIC = "mean z of forgotten records against models without them, smallest Holm p"
LARGEST_SCALE = 2.0
"""Held-out records whose z spread wider than this under a candidate: it treats never-seen records unlike any reference,
and forgotten ones could hide among them. A retrain stays below 1.5."""
_ASSUMED_RHO = 0.1


def record_checks(
    line: Line, calibration: Calibration | NotMeasurable, alpha: float
) -> tuple[list[Check], dict[str, Any]]:
    """(`per_record` of the candidate and `record_control` of the original, metrics by name)."""
    n = len(line.original[FORGET])
    m = len(line.original[HELD_OUT]) if line.has_held_out else None
    if isinstance(calibration, NotMeasurable):
        return [_unmeasured(name, calibration, n, m) for name in (PER_RECORD, RECORD_CONTROL)], {}
    sets = judged_sets(line.original, calibration)

    def measured(model: ModelScores) -> PerRecord | NotMeasurable:
        return sets if isinstance(sets, NotMeasurable) else _measured(rejudged(sets, model, calibration), alpha)

    candidate, original = measured(line.candidate), measured(line.original)
    references = None if isinstance(sets, NotMeasurable) else int(sets[0].count.min())
    checks = [
        _check(name, found, alpha, references, n, m)
        for name, found in ((PER_RECORD, candidate), (RECORD_CONTROL, original))
    ]
    metrics: dict[str, Any] = {PER_RECORD: _value(candidate), f"{PER_RECORD}_do_nothing": _value(original)}
    if line.retrained:
        metrics[f"{PER_RECORD}_retrained"] = [_value(measured(model)) for model in line.retrained]
    return checks, metrics


def _measured(sets: tuple[Judged, Judged], alpha: float) -> PerRecord | NotMeasurable:
    forget, held_out = sets
    least = int(min(forget.count.min(), held_out.count.min()))
    if least < 4:
        return NotMeasurable(f"not measurable: {least} references without a record are fewer than 4")
    pooled = pooled_variance(held_out.variance, held_out.count)
    z, others = unexplained(forget, held_out, pooled), unexplained(held_out, held_out, pooled)
    rho = correlation(others - others.mean(), held_out.subjects)
    found = per_record(
        z,
        HeldOut(others, held_out.subjects),
        least,
        PRIOR_WEIGHT + least - 1,
        max(_ASSUMED_RHO, rho) if isinstance(rho, float) else _ASSUMED_RHO,
        alpha,
    )
    if isinstance(found, PerRecord) and found.null == "student":
        return NotMeasurable(f"not measurable: 1,000 held-out records give the null, there are {len(others)}")
    if isinstance(found, PerRecord) and found.scale > LARGEST_SCALE:
        return NotMeasurable(
            f"not measurable: scores of never-seen records spread {found.scale:.1f} times as wide as references say"
        )
    return found


def _check(
    name: str, found: PerRecord | NotMeasurable, alpha: float, references: int | None, n: int, m: int | None
) -> Check:
    if isinstance(found, NotMeasurable):
        return _unmeasured(name, found, n, m)
    return Check(
        id=name,
        role="diagnostic",
        statistic=STATISTIC,
        estimate=found.estimate,
        alpha=alpha,
        ci=found.ci,
        ci95=found.ci95,
        margin=found.margin,
        n=n,
        m=m,
        cluster="record",
        power_at_zero=found.power_at_zero,
        smallest_detectable=found.smallest_detectable,
        references=references,
        p_value=found.smallest_p,
    )


def _unmeasured(name: str, why: NotMeasurable, n: int, m: int | None) -> Check:
    return Check(id=name, role="diagnostic", statistic=STATISTIC, n=n, m=m, reason=why.reason)


def _value(found: PerRecord | NotMeasurable) -> float | None:
    return found.estimate if isinstance(found, PerRecord) else None
