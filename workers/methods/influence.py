"""Influence: take back, or correct, what some records did to the weights, in one move.

Warnecke, Pirch, Wressnegger, Rieck 2023, arXiv:2108.11577. With z the records as they were and z~ as they should have
been (features or labels corrected, or nothing at all where a record is deleted):
    first order     theta <- theta - tau (sum grad l(z~) - sum grad l(z)) / n
    second order    theta <- theta - H^{-1} (sum grad l(z~) - sum grad l(z)) / n
with H the Hessian of the mean loss over the n records that stay (retained and corrected) plus `damping` times the
identity, which makes the second order Newton's step from a minimum on all records to that on those that stay, exact
for a quadratic loss. H^{-1} is applied by conjugate gradients on a sample of the retained records. Corrections come
with the problem (`Problem.replacements`): a record that is listed there is rectified (GDPR Article 16), the other
forgotten ones are deleted.

The default edits the linear head alone, where the loss is convex. The paper's certificate asks for convex losses,
noise during training and a bounded gradient residual; none of it is claimed here. A move that deletes ends where
forgotten records lose what unseen ones do or where others are harmed (workers/modeling/moving.py); published: tau by
grid search. Needs the records themselves and a sample of the retained ones; no optimiser. Costs |F| gradients and, for
the second order, two backward passes over the sample for each product. Fails on deep networks far from a minimum,
where H is indefinite (told in the notes), and on a group whose gradient is about 0 because the records are known by
heart: then the first order moves nothing.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from service.catalogue.families.influence import InfluenceParams
from service.errors import BadDataset
from workers.modeling.batching import Encoded
from workers.modeling.curvature import Hessian, Product, conjugate_gradients, gradient_sum
from workers.modeling.editing import Edit
from workers.modeling.layers import parameters_of, tied
from workers.modeling.moving import Limits, Ray, largest_within
from workers.modeling.problem import Context, Meter, Outcome, Problem
from workers.modeling.sampling import seeded_rows
from workers.modeling.softmax import flat_weights, head_weights, joined_weights, regression_of

_HALVINGS = 10


def influence(problem: Problem, params: InfluenceParams, context: Context, out_dir: Path) -> Outcome:
    """Write the corrected model into `out_dir`.

    Raises BadParameters where the model has no such layers, BadDataset for a replacement of a record that is not among
    the forgotten, JobError for a direction or weights that are not finite, Cancelled.
    """
    edit = Edit(problem, params, context)
    parameters = parameters_of(edit.model, params.layers, params.blocks)
    replaced = _replacements(edit)
    meter = Meter(context, 3, "unlearning")
    bounded = params.bound == "record"
    limits = Limits(edit, bounded, params.rise)
    meter.step(1)
    direction = -_change(edit, parameters, replaced) / (len(edit.retain) + (len(replaced) if replaced else 0))
    if params.order == "second":
        direction = _solved(edit, parameters, params, direction)
    meter.step(2)
    ray = Ray(parameters, params.scale * direction)

    def within(scale: float) -> bool:
        ray.to(scale)
        # Corrected records need not come to look unseen: how much others may lose is all that holds them.
        return limits.hold() if replaced is None else limits.harmless()

    length = largest_within(within, 1.0, 0, _HALVINGS) if bounded else 1.0
    ray.to(length)
    edit.steps += 1
    if length < 1:
        edit.notes.append(f"the move ended at {length:.3g} of its length, where its bound lies")
    if replaced is not None:
        edit.notes.append(f"{len(replaced)} of {len(edit.forget)} records were corrected, not deleted")
    meter.step(3)
    return edit.save(out_dir)


def _change(edit: Edit, parameters: list[nn.Parameter], replaced: Encoded | None) -> Tensor:
    """sum grad l(z~) - sum grad l(z)."""
    change = -gradient_sum(edit, edit.forget, parameters)
    return change if replaced is None else change + gradient_sum(edit, replaced, parameters)


def _solved(edit: Edit, parameters: list[nn.Parameter], params: InfluenceParams, target: Tensor) -> Tensor:
    found = conjugate_gradients(_product(edit, parameters, params), target, params.products, context=edit.context)
    edit.notes.append(f"{found.products} Hessian-vector products, relative residual {found.residual:.2g}")
    if found.negative:
        edit.notes.append("the curvature is negative along a direction: a larger damping would be better")
    if not bool(torch.any(found.x)):
        edit.notes.append("the gradients of the records vanish: nothing was moved")
    return found.x


def _product(edit: Edit, parameters: list[nn.Parameter], params: InfluenceParams) -> Product:
    """Products with the Hessian: in closed form for a head of its own, else by two backward passes."""
    classifier = edit.problem.task_name != "causal-lm"
    if params.layers != "head" or not classifier or tied(edit.model):
        return Hessian(edit, edit.retain, parameters, params.damping, params.sample).product
    rows = seeded_rows(len(edit.retain), params.sample, edit.context.seed)
    part = Encoded(edit.task, edit.problem.retain.subset(rows))
    convex, weights = regression_of(edit, part, params.damping), head_weights(edit)
    return lambda vector: flat_weights(edit, convex.product(weights, joined_weights(edit, vector)))


def _replacements(edit: Edit) -> Encoded | None:
    """The corrected records, None where all are deleted."""
    given = edit.problem.replacements
    if given is None or not len(given):
        return None
    unknown = set(given.ids.tolist()) - set(edit.problem.forget.ids.tolist())
    if unknown:
        raise BadDataset(f"{len(unknown)} of {len(given)} replacements are of records that are not to be changed")
    return Encoded(edit.task, given)
