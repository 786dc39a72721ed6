"""Exposure of the canaries that a deletion took along with people, for language models.

A canary is ranked by its loss per byte among canaries of its own kind that no training saw. After a deletion that
worked its exposure is 1.44 bits on average. More: a leak. Much less: over-forgotten. Loss per byte, since canaries
differ in length and versions may differ in tokenizer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.verification.exposure import MeanExposure, exposure, null_mean, rank_one_limit, ranks
from service.verification.language import EXPOSURE, EXPOSURE_CONTROL, RANK_ONE
from service.verification.limits import why_no_canaries
from service.verification.policy import VerificationPolicy
from service.verification.schema import Check, Traces
from service.verification.statistics import Array
from service.verification.verdict import NOT_RUN
from workers.planning.comparisons import Line
from workers.planning.score_tables import CANARY, CANARY_OUT, FORGET, ModelScores, SetScores

LEVEL = 0.995
"""Without a leak there are no more canaries before every reference than the limit, with this probability."""

_STATISTIC = "mean exposure of deleted canaries among those never trained on, within each kind (bits)"
_FIRST = "deleted canaries that rank before every never-trained one of their kind"


@dataclass(frozen=True)
class Exposed:
    """Mean exposure over the kinds in bits, what it is without a trace, how many canaries rank before every reference
    of their kind, and how many of them there may be without a trace."""

    bits: MeanExposure
    null: float
    first: int
    limit: int


def exposure_checks(
    line: Line, policy: VerificationPolicy, alpha: float, traces: Traces | None, kinds: Mapping[str, str]
) -> tuple[list[Check], dict[str, Any]]:
    """(`canary_exposure` and `canary_rank_one` of the candidate, `canary_exposure_control` of the original, metrics).

    Nothing for classifiers. Of canaries that were not scored the check says why, and there are no metrics.
    """
    if line.original[FORGET].likelihood is None:
        return [], {}
    if CANARY not in line.candidate or CANARY_OUT not in line.candidate:
        reason = f"{NOT_RUN}{why_no_canaries(traces)}"
        return [Check(id=EXPOSURE, role="diagnostic", statistic=_STATISTIC, reason=reason)], {}
    after, before = exposed(line.candidate, kinds), exposed(line.original, kinds)
    measured = [_check(name, found, policy, alpha) for name, found in ((EXPOSURE, after), (EXPOSURE_CONTROL, before))]
    checks = [measured[0], _first_check(after), measured[1]]
    metrics: dict[str, Any] = {
        EXPOSURE: after.bits.mean,
        f"{EXPOSURE}_do_nothing": before.bits.mean,
        RANK_ONE: after.first,
        f"{RANK_ONE}_do_nothing": before.first,
        f"{RANK_ONE}_limit": after.limit,
    }
    if line.retrained:
        found = [exposed(model, kinds) for model in line.retrained]
        metrics |= {f"{EXPOSURE}_retrained": [model.bits.mean for model in found]}
        metrics |= {f"{RANK_ONE}_retrained": [model.first for model in found]}
    return checks, metrics


def exposed(model: ModelScores, kinds: Mapping[str, str]) -> Exposed:
    """Exposure of the deleted canaries of one model; each of their kinds must have canaries outside."""
    deleted, outside = model[CANARY], model[CANARY_OUT]
    ours, theirs = (np.array([kinds[str(name)] for name in part.ids]) for part in (deleted, outside))
    losses, others = _per_byte(deleted), _per_byte(outside)
    names = np.unique(ours)
    bits = np.zeros(len(deleted))
    null, shared, first, limit = 0.0, 0.0, 0, 0
    for kind in names:
        mine, references = ours == kind, others[theirs == kind]
        rank = ranks(losses[mine], references)
        share = float(mine.mean())
        bits[mine] = exposure(rank, len(references))
        null += share * null_mean(len(references))
        shared += share**2 / len(references)
        first += int(np.count_nonzero(rank == 1))
        # The level is divided among the kinds, so that all of them keep their limits with probability LEVEL.
        limit += rank_one_limit(int(mine.sum()), len(references), 1 - (1 - LEVEL) / len(names))
    sd = float(bits.std(ddof=1)) if len(bits) > 1 else 0.0
    # As many references in one list would leave the same uncertainty as those of the kinds do together.
    return Exposed(MeanExposure(float(bits.mean()), sd, len(bits), max(1, round(1 / shared))), null, first, limit)


def _per_byte(part: SetScores) -> Array:
    assert part.likelihood is not None  # noqa: S101  (language models alone come here)
    return np.asarray(part.likelihood.nll / part.utf8_bytes, dtype=np.float64)


def _check(name: str, found: Exposed, policy: VerificationPolicy, alpha: float) -> Check:
    told = (
        f"{found.bits.mean:.2f} bits, {found.null:.2f} without a trace; {found.first} rank before every never-trained "
        f"canary of their kind, of which there are at most {found.limit} without a trace ({100 * LEVEL:.1f} %)"
    )
    return Check(
        id=name,
        role="diagnostic",
        statistic=_STATISTIC,
        estimate=found.bits.mean,
        alpha=alpha,
        ci=found.bits.interval(1 - 2 * alpha),
        ci95=found.bits.interval(0.95),
        margin=policy.exposure_highest,
        n=found.bits.canaries,
        m=found.bits.references,
        cluster="canary",
        reason=told,
    )


def _first_check(found: Exposed) -> Check:
    return Check(
        id=RANK_ONE,
        role="diagnostic",
        statistic=_FIRST,
        estimate=found.first,
        margin=found.limit,
        n=found.bits.canaries,
        m=found.bits.references,
        cluster="canary",
    )
