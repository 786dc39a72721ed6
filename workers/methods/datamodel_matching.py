"""Datamodel matching: predict what a retrained model would say, then fine-tune to say it.

Georgiev et al. 2024, arXiv:2410.23232, algorithms C.2 (the prediction, DM-direct) and C.3 (fine-tuning towards it):
    h(x) = f_x(theta_0) - sum_{i in F} beta_{x,i},    min mean_{x in F u R'} || f_x(theta) - h(x) ||^2
with R' a small part of the retained records, which holds the model where it is. The effects beta come from models
trained on subsets: here the methods' side of the reference pool (workers/modeling/datamodels.py), whose outputs are one
number a record (logit-scaled confidence, or minus the mean token loss), so that number is matched; squares are Huber's.
`source="newton"` needs no pool: the linear head alone is taken back by one Newton step (influence of F on a logistic
regression on the last features; classifiers), which underestimates what earlier layers know by heart.
The paper's settings: 1,000 to 20,000 subset models, F and R' of CIFAR-10 size, 100 models a side for its own measure.

Bounded below by the predictions. Costs `passes` visits of F with as many of R', and one pass over the pool's scores.
Fails for large F, where effects do not add up, and with pools of tens, where they are noisy.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.catalogue.families.references import DatamodelMatchingParams
from service.errors import BadParameters, Unevaluable
from workers.modeling.batching import Encoded
from workers.modeling.datamodels import forget_effects
from workers.modeling.devices import generator
from workers.modeling.editing import Edit, Step
from workers.modeling.head_removal import scores_without
from workers.modeling.matching import Aim
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.reference_targets import Array, all_scores, scores_by_rank
from workers.modeling.sampling import seeded_rows

_ORDER = 32


def datamodel_matching(problem: Problem, params: DatamodelMatchingParams, context: Context, out_dir: Path) -> Outcome:
    """Write a model that answers as predicted into `out_dir`.

    Raises BadParameters without a pool (unless `source` is "newton") and for a pool that does not know the records.
    """
    edit = Edit(problem, params, context)
    known = np.flatnonzero(problem.of_people(problem.retain))
    rows = known[seeded_rows(len(known), params.retained, context.seed)]
    anchors = Encoded(edit.task, problem.retain.subset(rows.tolist()))
    forgotten, kept = predicted(edit, anchors, params)
    spread = max(float(np.std(kept)), 1e-3) if params.spread is None else params.spread
    shape = spread, params.huber, problem.task_name == "causal-lm", context.device
    aims = Aim(forgotten, *shape), Aim(kept, *shape)
    order = anchors.cycle(min(edit.settings.retain_batch, len(anchors)), generator(context.seed, _ORDER))
    steps = [Step(step.forget, next(order)) for step in edit.over_forgotten(params.passes)]

    def loss(step: Step) -> Tensor:
        parts = ((edit.forget, step.forget), (anchors, step.retain))
        terms = [aim.term(rows, edit.answers(part, rows)) for aim, (part, rows) in zip(aims, parts, strict=True)]
        return terms[0] + terms[1]

    edit.run(steps, loss)
    return edit.save(out_dir)


def predicted(edit: Edit, anchors: Encoded, params: DatamodelMatchingParams) -> tuple[Array, Array]:
    """h of the forgotten records and of R'; forgotten canaries are in no pool and get the scores of unseen records of
    their rank."""
    if params.source == "newton":
        return scores_without(edit, anchors, params.damping)
    mine = edit.problem.of_people(edit.problem.forget)
    forgotten, kept = all_scores(edit, edit.forget), all_scores(edit, anchors)
    lost, split = _effects(edit, anchors, params), int(mine.sum())
    wanted = np.zeros(len(mine))
    wanted[mine] = forgotten[mine] - lost[:split]
    if not mine.all():
        # Without a selection people's records as they will be are the unseen ones.
        unseen = all_scores(edit, edit.selection) if edit.selection is not None else wanted[mine]
        wanted[~mine] = scores_by_rank(forgotten[~mine], unseen)
    return wanted, kept - lost[split:]


def _effects(edit: Edit, anchors: Encoded, params: DatamodelMatchingParams) -> Array:
    """What each output of forgotten people's records and of R' owes to the former."""
    table = edit.problem.references
    if table is None:
        raise BadParameters('datamodel_matching needs reference models, 16 at least, or source = "newton"')
    try:
        forgotten = table.rows("train", edit.problem.people.ids)
        outputs: NDArray[np.int64] = np.concatenate([forgotten, table.rows("train", anchors.records.ids)])
    except Unevaluable as error:
        raise BadParameters(f"the reference pool was made for other records: {error.detail}") from error
    known = table.members()
    return forget_effects(known.trained, known.scores[:, outputs], forgotten, outputs, params.estimator)
