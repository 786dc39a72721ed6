"""Mini-Unlearning: take back what the records did to the last states of a training; what came before has faded.

arXiv:2406.16986. The difference d between the weights of a training with the records and one without them obeys, near
a minimum, a contraction: d_{t+1} = (I - eta H) d_t + eta sum_{i in F, in batch t} grad l_i(theta_t) / |batch t|,
so that only a minimal subset of the latest historical gradients matters. Read from secondary sources; the paper stores
gradients while it trains. Here the states that the lineage keeps stand for them: at each of the last `states` states
the gradients of the forgotten records are computed anew, weighted by rates and batches of the order log up to the next
state, and (I - eta H) over such an interval is one number, `contraction`:
    d <- contraction * d + sum_i c_i grad l_i(theta_k),   theta_u = theta + s d.
With one state a step and a quadratic loss in one dimension this is exact. `scale="one"` takes s = 1, which is right
for plain SGD; the steps of AdamW are no multiples of gradients, so that the default takes the s at which forgotten
records lose what unseen ones do, or others begin to be harmed.
Needs lineage and recipe. Costs |F| gradients a state and some twenty-five measurements of the loss. Shown for convex
models and small networks (MNIST, Covtype, HIGGS); on deep ones the direction is a guess, and gradients of records that
are known by heart vanish.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.catalogue.families.influence import MiniUnlearningParams
from workers.modeling.curvature import gradient_sum
from workers.modeling.earlier import earlier, history_of, last_states
from workers.modeling.editing import Edit
from workers.modeling.layers import flat, parameters_of
from workers.modeling.moving import Limits, Ray, largest_within
from workers.modeling.observing import History
from workers.modeling.problem import Context, Meter, Outcome, Problem
from workers.modeling.records import joined

_DOUBLINGS, _HALVINGS = 10, 8
_FIRST = 1e-3
"""Of the weights' norm: where the search for the length begins."""


def mini_unlearning(problem: Problem, params: MiniUnlearningParams, context: Context, out_dir: Path) -> Outcome:
    """Write the model without the records' last traces into `out_dir`.

    Raises BadParameters where no state before the end of the training is left, Cancelled.
    """
    points, history = last_states(problem, params.states), history_of(problem)
    edit = Edit(problem, params, context)
    parameters = parameters_of(edit.model, "all")
    limits = Limits(edit, params.bound == "record", params.rise)
    meter = Meter(context, len(points) + 1, "unlearning")
    ends = [*(point.step for point in points[1:]), history.steps]
    shares = effects(problem, history, [point.step for point in points], ends)
    terms = []
    for at, point in enumerate(points):
        then = earlier(edit, point)
        terms.append(gradient_sum(then, edit.forget, parameters_of(then.model, "all"), weights=shares[at]))
        edit.forward, edit.backward = edit.forward + then.forward, edit.backward + then.backward
        meter.step(at + 1)
    direction = difference(terms, params.contraction)
    length = _length(edit, Ray(parameters, direction), limits, direction, params)
    edit.steps += 1
    edit.notes.append(f"{len(points)} states from step {points[0].step} of {history.steps} on; moved by {length:.3g}")
    meter.step(len(points) + 1)
    return edit.save(out_dir)


def effects(problem: Problem, history: History, begins: list[int], ends: list[int]) -> list[NDArray[np.float64]]:
    """What a gradient of each forgotten record [N] weighed between two states: the sum of rate / batch size."""
    count = len(problem.retain)
    found = [np.zeros(len(problem.forget)) for _ in begins]
    for batch in history.batches(joined(problem.retain, problem.forget), begins[0]):
        at = next(place for place, end in enumerate(ends) if batch.step < end)
        gone = np.array([row - count for row in batch.rows if row >= count], dtype=np.int64)
        np.add.at(found[at], gone, batch.rate * batch.weight / max(1, len(batch.rows)))
    return found


def difference(terms: list[Tensor], contraction: float) -> Tensor:
    """d after the last interval, from what each of them adds."""
    total = torch.zeros_like(terms[0])
    for term in terms:
        total = contraction * total + term
    return total


def _length(edit: Edit, ray: Ray, limits: Limits, direction: Tensor, params: MiniUnlearningParams) -> float:
    """Go there, as far as the bound allows; how far that is."""

    def within(scale: float) -> bool:
        ray.to(scale)
        return limits.hold()

    norm, length = float(direction.norm()), 1.0
    if norm == 0.0:
        edit.notes.append("the gradients of the records vanish: nothing was moved")
    elif params.bound == "record":
        own = float(flat(edit.model.parameters()).detach().norm())
        calibrated = params.scale == "calibrated"
        start, doublings = (_FIRST * own / norm, _DOUBLINGS) if calibrated else (1.0, 0)
        length = largest_within(within, start, doublings, _HALVINGS)
    ray.to(length)
    return length
