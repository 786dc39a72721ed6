"""Descent-to-Delete: solve the linear head anew on the retained records, and hide in noise what is left of the old one.

Neel, Roth, Sharifi-Malvajerdi 2021, arXiv:2007.02923 (perturbed gradient descent). On a loss that is m-strongly convex
and L-smooth, full gradient steps from the published weights on reach the new minimum w* geometrically, and
    |w - w*| <= D = |grad J(w)| / m
at any weights. The steps have Nesterov's momentum here, which needs sqrt(L/m) of them where the paper needs L/m.
Gaussian noise of sigma = D / (sqrt 2 (sqrt(ln 1/delta + epsilon) - sqrt(ln 1/delta))) on every weight then makes the
published head (epsilon, delta)-indistinguishable from w* with the same noise (zero-concentrated privacy, Bun and
Steinke 2016). w* is the minimum on the retained records alone. The paper bounds D by the loss's Lipschitz constant and
the number of steps before it sees the data; here it is measured, which is tighter.

What is convex is the head on fixed features: J = mean CE + l2/2 |w|^2, m = l2, L = l2 + the largest eigenvalue of the
features' second moment / 2 (Bohning 1992). The layers below have seen the forgotten records and stay as they are, so
the statement is one about the head, not about the model, which is judged by measurement like any other.
Needs a classifier whose head is a layer of its own; refused for a tied one, for which the loss is not convex, and where
the noise would drown the head (raise `steps` or `l2`). Costs one forward pass over the retained records and `steps`
products with their features. A head that was not trained with this `l2` moves also where nothing is forgotten.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from service.catalogue.families.influence import DescentToDeleteParams
from service.catalogue.parameters import EditParams
from service.errors import BadParameters
from workers.modeling.devices import generator
from workers.modeling.editing import Edit
from workers.modeling.layers import head_of, tied
from workers.modeling.problem import Context, Meter, Outcome, Problem
from workers.modeling.softmax import SoftmaxRegression, flat_weights, head_weights, regression_of

_NOISE = 31


def descent_to_delete(problem: Problem, params: DescentToDeleteParams, context: Context, out_dir: Path) -> Outcome:
    """Write the model with its new head into `out_dir`.

    Raises BadParameters for a tied head and for noise larger than allowed, Cancelled.
    """
    edit = Edit(problem, EditParams(), context)
    head = head_of(edit.model)
    if tied(edit.model):
        raise BadParameters("the head is tied to other weights, so that the loss is not convex in it")
    convex = regression_of(edit, edit.retain, params.l2)
    meter = Meter(context, params.steps, "unlearning")
    weights, distance = descended(convex, head_weights(edit), params.steps, meter)
    edit.steps += params.steps
    sigma = noise_scale(distance, params.epsilon, params.delta)
    size = float(weights.square().mean().sqrt())
    if sigma > params.largest_noise * size:
        raise BadParameters(
            f"the noise ({sigma:.2g}) would drown the head ({size:.2g}): raise steps, l2, epsilon or largest_noise"
        )
    drawn = torch.randn(weights.shape, generator=generator(context.seed, _NOISE), dtype=weights.dtype)
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(flat_weights(edit, weights + sigma * drawn), head.parameters())
    edit.notes.append(
        f"the head lies at most {distance:.2g} from the minimum on the retained records and has noise of {sigma:.2g}; "
        "the layers below it are as they were"
    )
    return edit.save(out_dir)


def descended(convex: SoftmaxRegression, weights: Tensor, steps: int, meter: Meter) -> tuple[Tensor, float]:
    """(weights after so many accelerated full gradient steps, how far the minimum is from them at most)."""
    smooth, strong = convex.smoothness, convex.l2
    momentum = (math.sqrt(smooth) - math.sqrt(strong)) / (math.sqrt(smooth) + math.sqrt(strong))
    ahead = weights
    for step in range(steps):
        before, weights = weights, ahead - convex.gradient(ahead) / smooth
        ahead = weights + momentum * (weights - before)
        meter.step(step + 1)
    return weights, float(convex.gradient(weights).norm()) / strong


def noise_scale(distance: float, epsilon: float, delta: float) -> float:
    """sigma that hides a distance: epsilon = rho + 2 sqrt(rho ln 1/delta) with rho = distance^2 / (2 sigma^2)."""
    log = math.log(1 / delta)
    return distance / (math.sqrt(2) * (math.sqrt(log + epsilon) - math.sqrt(log)))
