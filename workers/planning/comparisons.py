"""The figures of an evaluation: each of the candidate beside doing nothing and beside retrained models where given."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.verification.schema import Check, ModelNumbers, SetNumbers
from service.verification.statistics import Array, Mean, NotMeasurable
from workers.metrics.churn import Churn, churn, churn_by_class
from workers.metrics.forgetting_rate import forgetting_rate_accuracy, forgetting_rate_mia
from workers.metrics.klom import klom, klom_gaussian, klom_gaussian_null, klom_null
from workers.metrics.memory_retention import memory_retention_rate
from workers.metrics.tpr_at_fpr import OperatingPoint, tpr_at_fpr
from workers.metrics.tug_of_war import Levels, mia_efficacy, tow, tow_mia
from workers.metrics.unlearning_score import forgetting_quality, quality_null, unlearning_score
from workers.planning.checks import NO_HELD_OUT, auc_of, metric_check
from workers.planning.score_tables import FORGET, HELD_OUT, RETAIN, ModelScores, SetScores

Found = Mean | OperatingPoint | NotMeasurable
_LARGEST_EXPONENT = 300.0


@dataclass(frozen=True)
class Line:
    """The original, the candidate and the retrained models, scored on the same records."""

    original: ModelScores
    candidate: ModelScores
    retrained: Sequence[ModelScores]

    @property
    def has_held_out(self) -> bool:
        return HELD_OUT in self.original


def metric_checks(line: Line) -> tuple[list[Check], dict[str, Any]]:
    """(diagnostic checks of the candidate, metrics by name with `_do_nothing` and `_retrained` beside each)."""
    n = len(line.original[FORGET])
    m = len(line.original[HELD_OUT]) if line.has_held_out else 0
    measured: list[tuple[str, str, int, int, Callable[[ModelScores], Found]]] = [
        ("tpr_at_fpr", "true-positive rate at a false-positive rate of 1 %", n, m, _tpr),
        ("forgetting_rate_mia", "(AF - BF) / BT at a false-positive rate of 5 %", n, m, _rate_mia(line)),
        ("forgetting_rate_accuracy", "drop of accuracy over that of a model without them", n, m, _rate_accuracy(line)),
        ("memory_retention_rate", "accuracy on retained records, after over before", len(line.original[RETAIN]), 0,
         _retention(line, RETAIN)),
    ]  # fmt: skip
    checks: list[Check] = []
    metrics: dict[str, Any] = {}
    if line.has_held_out:
        metrics |= _beside(line, "membership_auc", lambda model: auc_of(model).auc)
    for name, statistic, first, second, function in measured:
        checks.append(metric_check(name, statistic, function(line.candidate), first, second))
        metrics |= _beside(line, name, lambda model, function=function: _value(function(model)))  # type: ignore[misc]
    if line.has_held_out:
        kept = _retention(line, HELD_OUT)
        metrics |= _beside(line, "memory_retention_rate_held_out", lambda model: _value(kept(model)))
    if line.original[RETAIN].likelihood is None:
        checks.append(_churn_check(line))
        metrics |= _churn_metrics(line)
    return checks, metrics


def _beside(line: Line, name: str, function: Callable[[ModelScores], float | None]) -> dict[str, Any]:
    found: dict[str, Any] = {name: function(line.candidate), f"{name}_do_nothing": function(line.original)}
    if line.retrained:
        found[f"{name}_retrained"] = [function(model) for model in line.retrained]
    return found


def _value(found: Found) -> float | None:
    if isinstance(found, NotMeasurable):
        return None
    return found.rate if isinstance(found, OperatingPoint) else found.estimate


def _tpr(model: ModelScores) -> Found:
    if HELD_OUT not in model:
        return NotMeasurable(NO_HELD_OUT)
    return tpr_at_fpr(model[FORGET].membership, model[HELD_OUT].membership, model[FORGET].subjects)


def _rate_mia(line: Line) -> Callable[[ModelScores], Found]:
    def rate(model: ModelScores) -> Found:
        if not line.has_held_out:
            return NotMeasurable(NO_HELD_OUT)
        before, after = ((scores[FORGET].membership, scores[HELD_OUT].membership) for scores in (line.original, model))
        return forgetting_rate_mia(before, after, line.original[FORGET].subjects)

    return rate


def _rate_accuracy(line: Line) -> Callable[[ModelScores], Found]:
    """Never seen: the retrained models on the forgotten records, else the original on held-out ones."""
    if line.retrained:
        never_seen = float(np.mean([model[FORGET].accuracy.mean() for model in line.retrained]))
    elif line.has_held_out:
        never_seen = float(line.original[HELD_OUT].accuracy.mean())
    else:
        return lambda _: NotMeasurable(NO_HELD_OUT)
    before = line.original[FORGET]
    return lambda model: forgetting_rate_accuracy(before.accuracy, model[FORGET].accuracy, never_seen, before.subjects)


def _retention(line: Line, part: str) -> Callable[[ModelScores], Found]:
    before = line.original[part]
    return lambda model: memory_retention_rate(before.accuracy, model[part].accuracy, before.subjects)


def _churn(line: Line, model: ModelScores, part: str) -> Churn:
    before = line.original[part]
    return churn(before.accuracy, model[part].accuracy, before.subjects)


def _churn_check(line: Line) -> Check:
    found = _churn(line, line.candidate, RETAIN)
    return Check(
        id="churn",
        role="diagnostic",
        statistic="share of retained records that are newly wrong",
        estimate=found.newly_wrong.rate,
        ci95=found.newly_wrong.interval(),
        n=found.n,
        cluster="subject",
        clusters=(found.subjects,),
    )


def _churn_metrics(line: Line) -> dict[str, Any]:
    """Newly wrong and newly right shares, and the newly wrong share of the class that has most of them."""
    found: dict[str, Any] = {}
    for part, ending in ((RETAIN, ""), (HELD_OUT, "_held_out")):
        if part in line.original:
            found |= _beside(line, f"churn_newly_wrong{ending}", _newly_wrong(line, part))
            found |= _beside(line, f"churn_newly_right{ending}", _newly_right(line, part))
            found |= _beside(line, f"churn_worst_class{ending}", _worst_class(line, part))
    return found


def _newly_wrong(line: Line, part: str) -> Callable[[ModelScores], float]:
    return lambda model: _churn(line, model, part).newly_wrong.rate


def _newly_right(line: Line, part: str) -> Callable[[ModelScores], float]:
    return lambda model: _churn(line, model, part).newly_right.rate


def _worst_class(line: Line, part: str) -> Callable[[ModelScores], float | None]:
    before, labels = line.original[part], line.original[part].labels
    if labels is None:
        return lambda _: None

    def share(model: ModelScores) -> float:
        by_class = churn_by_class(before.accuracy, model[part].accuracy, before.subjects, labels)
        return max(one.newly_wrong.rate for one in by_class.values())

    return share


def retrain_metrics(line: Line, seed: int) -> dict[str, Any]:
    """Measures against the retrained models, where there are any; null where more of them are needed."""
    if not line.retrained:
        return {}
    return _tug_of_war(line, seed) | _klom_gaussian(line) | _klom(line, seed) | _unlearning_score(line, seed)


def _tug_of_war(line: Line, seed: int) -> dict[str, Any]:
    names = [f"{name}{ending}" for name in ("tow", "tow_mia") for ending in ("", "_do_nothing", "_retrain_to_retrain")]
    if not line.has_held_out:
        return dict.fromkeys(names)
    candidate, original = _levels(line.candidate, seed), _levels(line.original, seed)
    retrained = [_levels(model, seed) for model in line.retrained]
    pairs = [(one, other) for one in retrained for other in retrained if one is not other]
    found: dict[str, Any] = {}
    for name, function in (("tow", tow), ("tow_mia", tow_mia)):
        found[name] = _mean([function(candidate, other) for other in retrained])
        found[f"{name}_do_nothing"] = _mean([function(original, other) for other in retrained])
        found[f"{name}_retrain_to_retrain"] = _mean([function(one, other) for one, other in pairs])
    return found


def _levels(model: ModelScores, seed: int) -> Levels:
    forget, retain, held_out = (model[part] for part in (FORGET, RETAIN, HELD_OUT))
    return Levels(
        forget=float(forget.accuracy.mean()),
        retain=float(retain.accuracy.mean()),
        held_out=float(held_out.accuracy.mean()),
        efficacy=mia_efficacy(forget.probability, retain.probability, held_out.probability, seed),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _klom_gaussian(line: Line) -> dict[str, Any]:
    names = ("klom_gaussian", "klom_gaussian_do_nothing", "klom_gaussian_retrain_to_retrain")
    if len(line.retrained) < 2:
        return dict.fromkeys([*names, *(f"{name}_p95" for name in names)])
    candidate, original, margins = _margins(line)
    found = klom_gaussian(candidate, margins), klom_gaussian(original, margins), klom_gaussian_null(margins)
    return _middle_and_tail(dict(zip(names, found, strict=True)))


def _klom(line: Line, seed: int) -> dict[str, Any]:
    names = ("klom", "klom_do_nothing", "klom_retrain_to_retrain")
    candidate, original, margins = _margins(line)
    found = klom(candidate, margins), klom(original, margins), klom_null(margins, 1, seed)
    return _middle_and_tail(dict(zip(names, found, strict=True)))


def _margins(line: Line) -> tuple[Array, Array, Array]:
    """Membership scores of the forgotten records by the candidate [1, k], the original [1, k] and retrained [r, k]."""
    candidate, original = (model[FORGET].membership[None, :] for model in (line.candidate, line.original))
    return candidate, original, np.stack([model[FORGET].membership for model in line.retrained])


def _middle_and_tail(spread: Mapping[str, Array | NotMeasurable]) -> dict[str, Any]:
    """Median and 95th percentile over forgotten records."""
    found: dict[str, Any] = {}
    for name, values in spread.items():
        known = None if isinstance(values, NotMeasurable) else values
        found[name] = None if known is None else float(np.median(known))
        found[f"{name}_p95"] = None if known is None else float(np.quantile(known, 0.95))
    return found


def _unlearning_score(line: Line, seed: int) -> dict[str, Any]:
    """The score over its null, which is `_null`; retrained models have 1 among themselves, but for their accuracies."""
    names = [f"unlearning_score{ending}" for ending in ("", "_do_nothing", "_retrain_to_retrain", "_null")]
    candidate, original, margins = _margins(line)
    subjects = line.original[FORGET].subjects
    null = quality_null(margins, 1, subjects, seed)
    if not line.has_held_out or isinstance(null, NotMeasurable):
        return dict.fromkeys(names)

    def estimate(model: ModelScores, quality: Mean | NotMeasurable) -> float | None:
        if isinstance(quality, NotMeasurable):
            return None
        score = unlearning_score(quality, null, _accuracies(line, model))
        return None if isinstance(score, NotMeasurable) else score.estimate

    own = estimate(line.candidate, forgetting_quality(candidate, margins, subjects))
    nothing = estimate(line.original, forgetting_quality(original, margins, subjects))
    again = [estimate(model, quality) for model, quality in zip(line.retrained, null, strict=True)]
    among = _mean([one for one in again if one is not None])
    return dict(zip(names, (own, nothing, among, _mean([one.estimate for one in null])), strict=True))


def _accuracies(line: Line, model: ModelScores) -> tuple[tuple[float, float], tuple[float, float]]:
    """(the model's, the retrained models' mean) accuracy on retained and on held-out records."""
    retain, held_out = (
        (float(model[part].accuracy.mean()), float(np.mean([one[part].accuracy.mean() for one in line.retrained])))
        for part in (RETAIN, HELD_OUT)
    )
    return retain, held_out


def numbers_of(model: ModelScores) -> ModelNumbers:
    """Mean loss and accuracy or perplexity of one model on each set."""
    found = {part: _set_numbers(model[part]) if part in model else None for part in (FORGET, RETAIN, HELD_OUT)}
    return ModelNumbers(**found)


def _set_numbers(scores: SetScores) -> SetNumbers:
    accuracy = float(scores.accuracy.mean())
    if scores.likelihood is None:
        return SetNumbers(loss=float(scores.loss.mean()), accuracy=accuracy)
    nll = float(scores.likelihood.nll.sum())
    per_token = nll / float(scores.tokens.sum())
    return SetNumbers(
        loss=per_token,
        accuracy=accuracy,
        perplexity=math.exp(min(per_token, _LARGEST_EXPONENT)),
        nats_per_byte=nll / float(scores.utf8_bytes.sum()),
    )
