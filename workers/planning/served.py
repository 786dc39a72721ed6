"""The same attacks on the weights as they are stored, beside those on the rounded weights that are served.

What people get decides: where a model is served in fewer bits, the gate's checks come from scores of rounded weights
(verification of served precisions: checks C8 and L7 of the suite). Rounding can bring back what a small edit took away
(Zhang et al., arXiv 2410.16454), and by its noise hide what is there. So both are printed.

Reference models are scored as they are stored, and nothing about them is rounded. They say how hard each record is for
a model without it; forgotten and held-out records are compared under one and the same rounded model, among records
that are equally hard. Rounding treats both alike where none of them was trained on: it can blur the comparison and not
tilt it.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from service.catalogue.precisions import FULL
from service.verification.policy import Policy
from service.verification.schema import Check, Evaluation
from service.verification.statistics import NotMeasurable
from service.verification.verdict import (
    CANARIES,
    CANARY_CONTROL,
    CONTROL,
    MEMBERSHIP,
    REFERENCE,
    REFERENCE_CONTROL,
    UTILITY,
)
from workers.planning.assessment import Facts, line_of
from workers.planning.calibrated import Calibration, reference_checks
from workers.planning.canary_checks import canary_checks
from workers.planning.checks import membership_checks, utility_check
from workers.planning.score_tables import read_tables

_CONTROLS = {MEMBERSHIP: CONTROL, REFERENCE: REFERENCE_CONTROL, CANARIES: CANARY_CONTROL, UTILITY: None}


def as_stored(name: str) -> str:
    """The id of a check, or the name of a metric, of the weights as they are stored."""
    return f"{name}_{FULL}"


def with_full_precision(
    found: Evaluation,
    tables: Mapping[str, pa.Table],
    policy: Policy,
    facts: Facts,
    alpha: float | None,
    references: Calibration | NotMeasurable,
) -> Evaluation:
    """The evaluation of rounded weights with diagnostics of the stored ones, from their score `tables` by model.

    Each stands beside its like as "membership_auc_fp32" and so on, with what doing nothing comes to among the metrics.
    Raises Unevaluable, see `read_tables`.
    """
    line, rules = line_of(read_tables(tables, found.task, facts.per_byte)), policy.verification
    level = alpha if alpha is not None else rules.alpha
    measured = [
        *membership_checks(line.original, line.candidate, rules, level),
        *reference_checks(line, references, rules, level)[0],
        *canary_checks(line, rules, level, facts.traces, facts.canary_kinds)[0],
        utility_check(line.original, line.candidate, rules, level, facts.forgotten_classes),
    ]
    by_id = {check.id: check for check in measured if check.estimate is not None}
    stored = [by_id[name] for name in _CONTROLS if name in by_id]
    metrics: dict[str, Any] = {}
    for check in stored:
        control = by_id.get(_CONTROLS[check.id] or "")
        if control is not None:
            metrics |= {as_stored(check.id): check.estimate, f"{as_stored(check.id)}_do_nothing": control.estimate}
    checks = [*found.checks, *(_beside(check, found) for check in stored)]
    return found.model_copy(update={"checks": checks, "metrics": found.metrics | metrics})


def _beside(check: Check, found: Evaluation) -> Check:
    served = found.check(check.id)
    told = (
        f"; {served.estimate:.3f} in {found.serve_precision}, as served"
        if served and served.estimate is not None
        else ""
    )
    reason = f"weights as they are stored{told}"
    return check.model_copy(
        update={"id": as_stored(check.id), "role": "diagnostic", "verdict": "info", "reason": reason}
    )
