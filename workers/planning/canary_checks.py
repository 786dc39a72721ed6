"""What canaries show that were deleted along with people: the checks of the very run that is judged."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from service.verification.limits import why_no_canaries
from service.verification.policy import VerificationPolicy, margin_for
from service.verification.schema import Check, Traces
from service.verification.statistics import Auc
from service.verification.verdict import CANARIES, CANARY_CONTROL, CANARY_RATE, NOT_RUN
from workers.metrics.companion_canaries import companion_auc, companion_design, companion_rate
from workers.planning.checks import auc_check
from workers.planning.comparisons import Line
from workers.planning.score_tables import CANARY, CANARY_OUT, ModelScores

_AUC = "AUC of deleted canaries against those never trained on, within each kind"
_RATE = "share of deleted canaries found at a false-positive rate of 5 %"


def canary_checks(
    line: Line, policy: VerificationPolicy, alpha: float, traces: Traces | None, kinds: Mapping[str, str]
) -> tuple[list[Check], dict[str, Any]]:
    """(`companion_canaries` and `companion_rate` of the candidate with `canary_control` of the original, metrics)."""
    if CANARY not in line.candidate or CANARY_OUT not in line.candidate:
        reason = f"{NOT_RUN}{why_no_canaries(traces)}"
        return [Check(id=CANARIES, role="diagnostic", statistic=_AUC, reason=reason)], {}
    after, before = _auc(line.candidate, kinds), _auc(line.original, kinds)
    checks = [
        _check(CANARIES, after, policy, alpha),
        _rate_check(line.candidate, kinds, policy, alpha),
        _check(CANARY_CONTROL, before, policy, alpha),
    ]
    metrics: dict[str, Any] = {CANARIES: after.auc, f"{CANARIES}_do_nothing": before.auc}
    if line.retrained:
        metrics[f"{CANARIES}_retrained"] = [_auc(model, kinds).auc for model in line.retrained]
    return checks, metrics


def _sides(model: ModelScores, kinds: Mapping[str, str]) -> tuple[Any, ...]:
    deleted, outside = model[CANARY], model[CANARY_OUT]
    named = (np.array([kinds[str(name)] for name in part.ids]) for part in (deleted, outside))
    return deleted.membership, outside.membership, *named


def _auc(model: ModelScores, kinds: Mapping[str, str]) -> Auc:
    return companion_auc(*_sides(model, kinds))


def _check(name: str, auc: Auc, policy: VerificationPolicy, alpha: float) -> Check:
    design, margin = companion_design(auc.n, auc.m), margin_for(policy.canary_margin, auc.n)
    return auc_check(name, auc, alpha, margin, design, _AUC, "canary")


def _rate_check(model: ModelScores, kinds: Mapping[str, str], policy: VerificationPolicy, alpha: float) -> Check:
    found = companion_rate(*_sides(model, kinds))
    return Check(
        id=CANARY_RATE,
        role="diagnostic",
        statistic=_RATE,
        estimate=found.rate,
        alpha=alpha,
        ci=(found.lower(alpha), found.upper(alpha)),
        ci95=found.interval(),
        margin=margin_for(policy.canary_rate, int(found.trials)),
        n=int(found.trials),
        m=len(model[CANARY_OUT]),
        cluster="canary",
    )
