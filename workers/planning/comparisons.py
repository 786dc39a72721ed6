"""The figures of an evaluation: each of the candidate beside doing nothing and beside retrained models where given."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.verification.schema import Check, ModelNumbers, SetNumbers
from service.verification.statistics import Array, Mean, NotMeasurable
from workers.metrics.forgetting_rate import forgetting_rate_accuracy, forgetting_rate_mia
from workers.metrics.klom import klom_gaussian, klom_gaussian_null
from workers.metrics.memory_retention import memory_retention_rate
from workers.metrics.tpr_at_fpr import OperatingPoint, tpr_at_fpr
from workers.metrics.tug_of_war import Levels, mia_efficacy, tow, tow_mia
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


def retrain_metrics(line: Line, seed: int) -> dict[str, Any]:
    """Tug of war and KLoM against the retrained models, where there are any; null where more of them are needed."""
    if not line.retrained:
        return {}
    return _tug_of_war(line, seed) | _klom(line)


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


def _klom(line: Line) -> dict[str, Any]:
    """Median and 95th percentile over forgotten records."""
    names = ("klom_gaussian", "klom_gaussian_do_nothing", "klom_gaussian_retrain_to_retrain")
    if len(line.retrained) < 2:
        return dict.fromkeys([*names, *(f"{name}_p95" for name in names)])
    margins = np.stack([model[FORGET].membership for model in line.retrained])
    spread: dict[str, Array] = {
        names[0]: klom_gaussian(line.candidate[FORGET].membership[None, :], margins),
        names[1]: klom_gaussian(line.original[FORGET].membership[None, :], margins),
        names[2]: klom_gaussian_null(margins).ravel(),
    }
    middle = {name: float(np.median(values)) for name, values in spread.items()}
    return middle | {f"{name}_p95": float(np.quantile(values, 0.95)) for name, values in spread.items()}


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
