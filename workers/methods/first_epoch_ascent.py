"""First-epoch gradient ascent: go up the gradients that the records had when the training had met them once.

Zagardo 2024, arXiv:2406.09391 (no official code; symbols reconstructed):
    theta_S <- theta_S + eta s sum_{i in F'} grad_S l(x_i; theta_1),
with theta_1 the weights at the end of the first epoch, S a group of layers, the embedding by default: the paper finds
it decisive for GPT-2 and the last two blocks without effect. In GPT-2 the embedding is tied to the output head, so that
"embedding alone" edits the head as well; the finding need not carry over to untied models.

The paper records gradients while it trains. Here they are computed anew at the newest state of the first epoch that the
lineage kept (`epoch` takes a later one, to compare): nothing is stored for each record, and the training is as it was.
`iterative` takes one record at a time, those with the greatest influence first, and stops each one where it loses what
the unseen record of its rank does; `fuzzy` moves all at once together with the retained texts that nearly repeat them.
The paper says that the length must be calibrated and not how: here it is found by bisection up to the loss of unseen
records (two-sided: never beyond it), and the method ends where unseen records lose `rise` more than before.

Influence of a record, two routes: "activation", how well its activations in front of the head agree then and now (their
mean product), and "hessian", g^T (H + damping)^{-1} g_i (workers/modeling/influence_scores.py).

Needs lineage and recipe; no optimiser, no retained records but a sample to measure harm. Costs one gradient a record
and some ten measurements of its loss. Fails where theta_1 is far from the served weights (long trainings): its
gradients then point nowhere in particular, the guard against harm ends the run early, and the notes say after how many
records.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.catalogue.families.founding import FirstEpochAscentParams
from workers.modeling.batching import Encoded
from workers.modeling.curvature import gradient_sum
from workers.modeling.earlier import earlier, history_of, state_before
from workers.modeling.editing import Edit
from workers.modeling.influence_scores import activation_scores, hessian_scores
from workers.modeling.layers import flat, parameters_of, size_in_bytes
from workers.modeling.moving import Limits, Ray, largest_within
from workers.modeling.problem import Context, Meter, Outcome, Problem
from workers.modeling.records import joined

_DOUBLINGS, _HALVINGS = 8, 5
_RETREATS = 3


def first_epoch_ascent(problem: Problem, params: FirstEpochAscentParams, context: Context, out_dir: Path) -> Outcome:
    """Write the ascended model into `out_dir`.

    Raises BadParameters where no state of the first epoch is left or the model has no such layers, Cancelled.
    """
    history, recipe = history_of(problem), problem.recipe
    assert recipe is not None  # noqa: S101  (history_of has looked)
    point = state_before(problem, history.steps * min(params.epoch, recipe.training.epochs) // recipe.training.epochs)
    edit = Edit(problem, params, context)
    ascent = _Ascent(edit, earlier(edit, point), params)
    whole = size_in_bytes(list(edit.model.parameters()))
    edit.notes.append(
        f"gradients at step {point.step} of {history.steps}; one takes {ascent.bytes} bytes, of all layers {whole}"
    )
    if params.mode == "iterative":
        ascent.one_by_one()
    else:
        ascent.all_at_once()
    return ascent.save(out_dir)


class _Ascent:
    """The edited model, the one after the first epoch, and how far may be gone."""

    def __init__(self, edit: Edit, then: Edit, params: FirstEpochAscentParams) -> None:
        self._edit, self._then, self._params = edit, then, params
        self._now, self._before = (parameters_of(one.model, params.layers, params.blocks) for one in (edit, then))
        self._limits = Limits(edit, params.bound == "record", params.rise)
        self.bytes = size_in_bytes(self._now)

    def one_by_one(self) -> None:
        """Record by record, by falling influence."""
        rows = np.argsort(-self._scores(), kind="stable").tolist() * self._params.applications
        meter = Meter(self._edit.context, len(rows), "unlearning")
        for at, row in enumerate(rows):
            if not self._lift(row):
                self._edit.notes.append(f"ended after {at} of {len(rows)} records: others would have been harmed")
                break
            meter.step(at + 1)
        meter.step(len(rows))

    def all_at_once(self) -> None:
        """All records and their near matches along the sum of their gradients."""
        records = self._edit.problem.forget
        near = self._near_matches()
        if near:
            retain = self._edit.problem.retain
            records = joined(records, retain.subset(sorted(retain.rows_of(near).tolist())))
            self._edit.notes.append(f"{len(near)} retained records nearly repeat forgotten ones and were moved along")
        meter = Meter(self._edit.context, self._params.applications + 1, "unlearning")
        direction = gradient_sum(self._then, Encoded(self._then.task, records), self._before)
        for application in range(self._params.applications):
            meter.step(application + 1)
            self._move(direction, self._limits.hold)
        meter.step(self._params.applications + 1)

    def save(self, out_dir: Path) -> Outcome:
        """Write the model, with the passes of both."""
        self._edit.forward += self._then.forward
        self._edit.backward += self._then.backward
        return self._edit.save(out_dir)

    def _lift(self, row: int) -> bool:
        """Bring one record to the loss of the unseen one of its rank; whether that did no harm."""
        if self._params.bound == "none":
            self._move(gradient_sum(self._then, self._edit.forget, self._before, [row]), lambda: True)
            return True
        ceiling = float(self._limits.ceilings[row])
        if self._loss(row) >= ceiling:
            return True
        direction = gradient_sum(self._then, self._edit.forget, self._before, [row])
        return self._move(direction, lambda: self._loss(row) <= ceiling, retreats=_RETREATS)

    def _move(self, direction: Tensor, within: Callable[[], bool], retreats: int = 0) -> bool:
        """Go as far as `within` holds; answers whether others are unharmed, going back in halves and at last wholly."""
        norm = float(direction.norm())
        if norm == 0.0:
            return True
        ray = Ray(self._now, direction / norm)
        start = self._params.length * float(flat(self._now).detach().norm())

        def asked(scale: float) -> bool:
            ray.to(scale)
            return within()

        bounded = self._params.bound == "record"
        length = largest_within(asked, start, _DOUBLINGS, _HALVINGS) if bounded else start
        ray.to(length)
        self._edit.steps += 1
        for _ in range(retreats):
            if self._limits.harmless():
                return True
            length /= 2
            ray.to(length)
        if retreats and not self._limits.harmless():
            ray.to(0.0)
            return False
        return True

    @torch.no_grad()
    def _loss(self, row: int) -> float:
        return float(self._edit.losses(self._edit.forget, [row])[0])

    def _near_matches(self) -> set[str]:
        history = history_of(self._edit.problem)
        found = history.near_matches(self._edit.problem.forget.ids.tolist(), self._params.similarity)
        return found & set(self._edit.problem.retain.ids.tolist())

    def _scores(self) -> NDArray[np.float64]:
        """Influence of each forgotten record [N]; all 0 where none is wanted."""
        if self._params.score == "activation":
            return activation_scores(self._edit, self._then)
        if self._params.score == "hessian":
            return hessian_scores(self._edit, self._then, (self._now, self._before), self._params.damping)
        return np.zeros(len(self._edit.forget))
