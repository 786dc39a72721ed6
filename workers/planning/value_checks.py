"""Numbers that belong to people, ranked among others that could stand there: how far a language model knows them.

Without a trace a number's exposure is 1.44 bits on average, if those that it is compared with are as likely before
anything is known of the person. They never quite are, so that the same of never-seen people's numbers is taken off,
and where retrained models were given, what these say of the very same numbers: what they rank as high is guessable.
"""

from typing import Any

import numpy as np

from service.verification.exposure import NULL_MEAN
from service.verification.language import VALUE_CONTROL, VALUES
from service.verification.policy import VerificationPolicy
from service.verification.schema import Check
from service.verification.statistics import Array, Mean, NotMeasurable
from workers.metrics.extraction import mean_difference
from workers.planning.checks import NO_HELD_OUT
from workers.planning.comparisons import Line
from workers.planning.score_tables import FORGET, HELD_OUT, VALUE_BITS, VALUE_OTHERS, ModelScores

_STATISTIC = "mean exposure of people's numbers{among}, less what never-seen people's have beyond 1.44 (bits)"
_FEWEST = 2


def value_checks(line: Line, policy: VerificationPolicy, alpha: float) -> tuple[list[Check], dict[str, Any]]:
    """(`value_exposure` of the candidate and `value_exposure_control` of the original, metrics by name).

    Nothing for classifiers, for tables without the column, and where forgotten texts hold no number.
    """
    if VALUE_BITS not in line.original[FORGET].texts or np.isnan(line.original[FORGET].texts[VALUE_BITS]).all():
        return [], {}
    found = {VALUES: _measured(line, line.candidate), VALUE_CONTROL: _measured(line, line.original)}
    metrics: dict[str, Any] = {VALUES: _value(found[VALUES]), f"{VALUES}_do_nothing": _value(found[VALUE_CONTROL])}
    if (others := _others(line)) is not None:
        metrics[f"{VALUES}_others"] = others
    if line.retrained:
        metrics[f"{VALUES}_retrained"] = [_value(_measured(line, model)) for model in line.retrained]
    return [_check(name, one, line, policy, alpha) for name, one in found.items()], metrics


def _measured(line: Line, model: ModelScores) -> Mean | NotMeasurable:
    """Calibrated mean exposure in bits; its error is over people of either side."""
    if HELD_OUT not in model:
        return NotMeasurable(NO_HELD_OUT)
    others = [other for other in line.retrained if other is not model]
    sides = []
    for part in (FORGET, HELD_OUT):
        known = _known(line, part)
        beyond = [one[part].texts[VALUE_BITS][known] for one in others]
        own = model[part].texts[VALUE_BITS][known]
        sides.append((own - np.mean(beyond, axis=0) if beyond else own, model[part].subjects[known]))
    (own, people), (theirs, strangers) = sides
    if min(len(np.unique(people)), len(np.unique(strangers))) < _FEWEST:
        return NotMeasurable("not measurable: numbers of two people at least are needed on either side")
    found = mean_difference(own, theirs, people, strangers)
    return Mean(found.estimate + NULL_MEAN, found.se, found.n, found.clusters)


def _known(line: Line, part: str) -> Array:
    models = (line.original, line.candidate, *line.retrained)
    return np.asarray(np.all([~np.isnan(model[part].texts[VALUE_BITS]) for model in models], axis=0))


def _others(line: Line) -> int | None:
    """How many others each number is ranked among, the fewest of all; None where a table of before does not say."""
    counts = [part.texts[VALUE_OTHERS] for part in line.original.values() if VALUE_OTHERS in part.texts]
    known = np.concatenate([count[~np.isnan(count)] for count in counts]) if counts else np.zeros(0)
    return int(known.min()) if len(known) else None


def _check(name: str, found: Mean | NotMeasurable, line: Line, policy: VerificationPolicy, alpha: float) -> Check:
    n, others = int(_known(line, FORGET).sum()), _others(line)
    statistic = _STATISTIC.format(among=f" among {others:,} others each" if others is not None else "")
    if isinstance(found, NotMeasurable):
        return Check(id=name, role="diagnostic", statistic=statistic, n=n, reason=found.reason)
    return Check(
        id=name,
        role="diagnostic",
        statistic=statistic,
        estimate=found.estimate,
        alpha=alpha,
        ci=found.interval(1 - 2 * alpha),
        ci95=found.interval(0.95),
        margin=policy.exposure_highest,
        n=n,
        m=int(_known(line, HELD_OUT).sum()),
        cluster="subject",
        clusters=(found.clusters,),
        references=len(line.retrained) or None,
    )


def _value(found: Mean | NotMeasurable) -> float | None:
    return found.estimate if isinstance(found, Mean) else None
