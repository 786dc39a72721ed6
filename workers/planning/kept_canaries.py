"""Two more things that canaries show: guesses for the wager over publications, and what becomes of those that stay."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from service.verification.schema import Check
from service.verification.sequential import GUESSES, RIGHT
from service.verification.statistics import Array
from service.verification.verdict import NOT_RUN
from workers.metrics.canary_guesses import canary_guesses
from workers.metrics.retained_harm import RetainedHarm, retained_harm
from workers.planning.comparisons import Line
from workers.planning.score_tables import CANARY, CANARY_KEPT, CANARY_OUT, ModelScores, SetScores

HARM = "retained_harm"
HARM_MARGIN = 0.03
POWERED = 300
"""Canaries that stay from which on the increase can be bounded below the margin (check C9 of the suite)."""

_STATISTIC = "increase of the AUC of planted canaries that stay, against those never trained on, within each kind"


def guess_metrics(line: Line, opposites: Mapping[str, str]) -> dict[str, Any]:
    """How many guesses there were on deleted canaries and how many were right, of the candidate and of the original.

    `opposites` of deleted canaries by record id; those whose opposite was not scored are not guessed. None: no metrics.
    """
    if CANARY not in line.candidate or CANARY_OUT not in line.candidate:
        return {}
    after, before = (_guesses(model, opposites) for model in (line.candidate, line.original))
    if not len(after):
        return {}
    return {GUESSES: len(after), RIGHT: float(after.sum()), f"{RIGHT}_do_nothing": float(before.sum())}


def _guesses(model: ModelScores, opposites: Mapping[str, str]) -> Array:
    deleted, outside = model[CANARY], model[CANARY_OUT]
    rows = {str(name): row for row, name in enumerate(outside.ids)}
    pairs = [(row, rows.get(opposites.get(str(name), ""))) for row, name in enumerate(deleted.ids)]
    known = [(ours, theirs) for ours, theirs in pairs if theirs is not None]
    ours, theirs = (np.array(side, dtype=np.int64) for side in (zip(*known, strict=True) if known else ((), ())))
    return canary_guesses(deleted.membership[ours], outside.membership[theirs])


def harm_checks(line: Line, alpha: float, kinds: Mapping[str, str]) -> tuple[list[Check], dict[str, Any]]:
    """(`retained_harm`, metrics): AUC of canaries that stay, candidate less original; nothing without canaries."""
    if CANARY_OUT not in line.candidate:
        return [], {}
    if CANARY_KEPT not in line.candidate:
        reason = f"{NOT_RUN}no planted canary is left that was not deleted"
        return [Check(id=HARM, role="diagnostic", statistic=_STATISTIC, reason=reason)], {}
    found = _harm(line.candidate, line.original, kinds)
    metrics: dict[str, Any] = {HARM: found.increase}
    if line.retrained:
        metrics[f"{HARM}_retrained"] = [_harm(model, line.original, kinds).increase for model in line.retrained]
    return [_check(found, alpha)], metrics


def _harm(model: ModelScores, original: ModelScores, kinds: Mapping[str, str]) -> RetainedHarm:
    def named(part: SetScores) -> Array:
        return np.array([kinds[str(name)] for name in part.ids])

    kept, outside = ((model[part].membership, original[part].membership) for part in (CANARY_KEPT, CANARY_OUT))
    return retained_harm(kept, outside, named(original[CANARY_KEPT]), named(original[CANARY_OUT]))


def _check(found: RetainedHarm, alpha: float) -> Check:
    ci = found.interval(1 - 2 * alpha)
    if ci[1] < HARM_MARGIN:
        told = "records that stay are given away no more than before, within the margin"
    elif ci[0] > 0:
        told = "records that stay are given away more than before"
    else:
        told = "the interval reaches over the margin"
        told += f": {found.n} canaries are few, {POWERED} would do" if found.n < POWERED else ""
    return Check(
        id=HARM,
        role="diagnostic",
        statistic=_STATISTIC,
        estimate=found.increase,
        alpha=alpha,
        ci=ci,
        ci95=found.interval(0.95),
        margin=HARM_MARGIN,
        n=found.n,
        m=found.m,
        cluster="canary",
        clusters=(found.n, found.m),
        reason=f"{told}; AUC {found.before:.3f} under the original",
    )
