"""Membership attacks on language models beyond the plain loss: checks that are printed and decide nothing."""

from typing import Any

from service.verification.schema import Check
from service.verification.statistics import Array, Auc, NotMeasurable, clustered_auc
from service.verification.verdict import NOT_RUN
from workers.metrics.text_attacks import min_k_scores, reference_scores, zlib_scores
from workers.planning.calibrated import Calibration, judged_sets
from workers.planning.checks import NO_HELD_OUT, auc_check
from workers.planning.comparisons import Line
from workers.planning.score_tables import FORGET, HELD_OUT, ModelScores, SetScores

ZLIB, MIN_K, MIN_K_PLUS_PLUS = "zlib_auc", "min_k_auc", "min_k_plus_plus_auc"
REFERENCE_LOSS = "reference_loss_auc"

_STATISTICS = {
    ZLIB: "AUC of the loss over the compressed length",
    MIN_K: "AUC of the least likely fifth of the tokens (Min-K%)",
    MIN_K_PLUS_PLUS: "AUC of the same, each token among those that could have stood there (Min-K%++)",
    REFERENCE_LOSS: "AUC of the loss less that of reference models without the text",
}
_NEEDED = {ZLIB: "zlib_bytes", MIN_K: "min_k", MIN_K_PLUS_PLUS: "min_k_plus_plus"}


def text_checks(
    line: Line, references: Calibration | NotMeasurable, alpha: float
) -> tuple[list[Check], dict[str, Any]]:
    """(AUC checks of the candidate, metrics by name with `_do_nothing` and `_retrained` beside each).

    Nothing for classifiers. What cannot be measured is a check with its reason, and has no metrics.
    """
    if line.original[FORGET].likelihood is None:
        return [], {}
    checks: list[Check] = []
    metrics: dict[str, Any] = {}
    for name in _STATISTICS:
        found = _measured(name, line.candidate, references)
        checks.append(_check(name, found, line, alpha))
        if isinstance(found, NotMeasurable):
            continue
        metrics |= {name: found.auc, f"{name}_do_nothing": _value(_measured(name, line.original, references))}
        if line.retrained:
            metrics[f"{name}_retrained"] = [_value(_measured(name, model, references)) for model in line.retrained]
    return checks, metrics


def _measured(name: str, model: ModelScores, references: Calibration | NotMeasurable) -> Auc | NotMeasurable:
    if HELD_OUT not in model:
        return NotMeasurable(NO_HELD_OUT)
    if name == REFERENCE_LOSS:
        return _reference_loss(model, references)
    forget, held_out = model[FORGET], model[HELD_OUT]
    if any(_NEEDED[name] not in part.texts for part in (forget, held_out)):
        return NotMeasurable(f"{NOT_RUN}the score tables have no column {_NEEDED[name]}")
    return clustered_auc(_scores(name, forget), _scores(name, held_out), forget.subjects, held_out.subjects)


def _scores(name: str, part: SetScores) -> Array:
    column = part.texts[_NEEDED[name]]
    return zlib_scores(part.loss, column) if name == ZLIB else min_k_scores(column)


def _reference_loss(model: ModelScores, references: Calibration | NotMeasurable) -> Auc | NotMeasurable:
    if isinstance(references, NotMeasurable):
        return references
    sets = judged_sets(model, references)
    if isinstance(sets, NotMeasurable):
        return sets
    if any((part.count < 1).any() for part in sets):
        return NotMeasurable("not measurable: some records have no reference model without them")
    # Tables of references hold scores, which are minus losses.
    forget, held_out = (reference_scores(-part.scores, -part.mean) for part in sets)
    return clustered_auc(forget, held_out, sets[0].subjects, sets[1].subjects)


def _check(name: str, found: Auc | NotMeasurable, line: Line, alpha: float) -> Check:
    if isinstance(found, NotMeasurable):
        n, m = len(line.original[FORGET]), len(line.original[HELD_OUT]) if line.has_held_out else None
        return Check(id=name, role="diagnostic", statistic=_STATISTICS[name], n=n, m=m, reason=found.reason)
    made = auc_check(name, found, alpha, margin=None, statistic=_STATISTICS[name])
    return made.model_copy(update={"p_value": found.p_value()})


def _value(found: Auc | NotMeasurable) -> float | None:
    return found.auc if isinstance(found, Auc) else None
