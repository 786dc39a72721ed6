"""What a model that never saw a record would say of it: targets for methods, from their side of a reference pool.

References saw half of the data and are less sure than a model of all of it. How much less is learnt from selection
records, which neither they nor the served model saw: the served score as a monotone function of the references' mean
(isotonic least squares), which also draws the mean of few references towards what is usual. Beyond the range of the
selection records it goes on with the slope of a straight fit, since mislabelled records lie there.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.errors import BadParameters, Unevaluable
from workers.modeling.answers import Answers
from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.problem import ReferenceTable

Array = NDArray[np.float64]

FEWEST = 30
"""Selection records from which on the correction may bend; fewer give a straight line."""
_SMALLEST_SPREAD = 0.25
_BATCH = 256


@dataclass(frozen=True)
class ReferenceTargets:
    """Scores [N] that the forgotten records should have, and how far two models without them lie apart (one number).

    Scores as `scores` gives them.
    """

    scores: Array
    spread: float


def scores(found: Answers, language: bool) -> Tensor:
    """Membership score of each record [B], with gradient: z_y - logsumexp of the others, or minus the mean token loss.

    The units of a reference table.
    """
    if language:
        return -found.record_losses()
    true = found.targets.unsqueeze(1)
    others = found.logits.scatter(1, true, -torch.inf)
    return found.logits.gather(1, true)[:, 0] - torch.logsumexp(others, dim=1)


@torch.no_grad()
def all_scores(edit: Edit, part: Encoded) -> Array:
    """Scores of all records [N] under the weights as they are."""
    language, found = edit.problem.task_name == "causal-lm", np.zeros(len(part))
    for rows in part.in_order(_BATCH):
        found[rows] = scores(edit.answers(part, rows), language).double().cpu().numpy()
    return found


def corrected(references: Array, served: Array, at: Array) -> Array:
    """The served score to expect where the references' mean is `at` [n], from pairs of never-seen records [m]."""
    slope, start = np.polyfit(references, served, 1) if np.ptp(references) > 0 else (1.0, float(np.mean(served)))
    if slope <= 0:
        slope, start = 1.0, float(np.mean(served - references))
    if len(references) < FEWEST:
        return np.asarray(start + slope * at, dtype=np.float64)
    from sklearn.isotonic import IsotonicRegression

    low, high = np.quantile(references, [0.01, 0.99])
    fitted = IsotonicRegression(out_of_bounds="clip").fit(references, served)
    beyond = np.minimum(at - low, 0.0) + np.maximum(at - high, 0.0)
    return np.asarray(fitted.predict(np.clip(at, low, high)) + slope * beyond, dtype=np.float64)


def reference_targets(edit: Edit) -> ReferenceTargets:
    """Targets of the forgotten records; call it before the first step.

    Canaries that are deleted along are in no pool: each gets the score of the selection record of its rank among them.
    Raises BadParameters without references or where the pool does not know a record.
    """
    table, problem = edit.problem.references, edit.problem
    if table is None or edit.selection is None:
        raise BadParameters("targets from references need a pool of 16 at least and a held-out set")
    planted = ~problem.of_people(problem.forget)
    try:
        forgotten = table.rows("train", np.asarray(problem.forget.ids)[~planted])
        selected = table.rows("held_out", edit.selection.records.ids)
    except Unevaluable as error:
        raise BadParameters(f"the reference pool was made for other records: {error.detail}") from error
    served = all_scores(edit, edit.selection)
    wanted, spread = np.zeros(len(planted)), 1.0
    if not planted.all():
        wanted[~planted], spread = _targets(table, forgotten, selected, served)
    if planted.any():
        wanted[planted] = scores_by_rank(all_scores(edit, edit.forget)[planted], served)
    return ReferenceTargets(wanted, spread)


def scores_by_rank(found: Array, unseen: Array) -> Array:
    """For each of these scores [N] that of the unseen record [M] of its rank."""
    ranks = np.argsort(np.argsort(found, kind="stable"), kind="stable")
    return np.asarray(np.quantile(unseen, (ranks + 0.5) / len(ranks)), dtype=np.float64)


def _targets(
    table: ReferenceTable, forgotten: NDArray[np.int64], selected: NDArray[np.int64], served: Array
) -> tuple[Array, float]:
    mean, variance = table.column("out_mean"), table.column("out_var")
    wanted = corrected(mean[selected], served, mean[forgotten])
    if not np.isfinite(wanted).all():
        raise BadParameters("some forgotten records have no reference that was trained without them")
    # Nobody is sent further than the oddest records that were never seen.
    wanted = np.clip(wanted, served.min(), served.max())
    known = variance[np.isfinite(variance)]
    return wanted, max(float(np.sqrt(known.mean())) if len(known) else 1.0, _SMALLEST_SPREAD)
