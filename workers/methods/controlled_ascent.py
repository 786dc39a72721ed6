"""Controlled ascent: gradient ascent on the forgotten records, and what keeps it from ruining the model.

Wang, Han, Yang, Zhu, Liu, Sugiyama 2024 (arXiv:2406.09179, "Unlearning with Control") show that plain ascent forgets
too much, and control it: by stopping early, by editing part of the weights, and by mixing the result with the served
weights until what is kept comes back,
    theta = theta_0 + a (theta_u - theta_0),    the largest a in [0, 1] at which retained records are kept well enough.
Here: a record is ascended only while its loss lies below that of unseen records of its rank (`bound`), and the run ends
when all are done; `share` of the weights may change, counted from the output backwards; a is found by bisection, so
that the mean loss of a sample of retained records rises by `tolerance` at most. Which figure the paper keeps at 95 %
could not be confirmed; 0.05 nats keep 95 % of the retained records' likelihood, as a geometric mean.
`bound="none", tolerance=None` is plain gradient ascent.

Published settings: AdamW at 1e-5 for language models. The default rate is a tenth of what methods with a repair take:
one step at theirs takes a record past every bound. Needs a held-out set for the bound, and retained records to
measure alone: none is trained on. Costs `passes` over the forgotten records, and 12 measurements of 500 records.
Fails where forgetting and keeping share weights: the way back gives up what was forgotten. The loss reached is that of
unseen records on average only if a is 1.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from service.catalogue.families.baselines import ControlledAscentParams
from workers.modeling.batching import Encoded
from workers.modeling.editing import Bounds, Edit, Step, falling
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.sampling import seeded_rows
from workers.modeling.sensitivity import weights_of

_KEPT = 500
_CAREFUL = 0.1
_HALVINGS = 10


def controlled_ascent(problem: Problem, params: ControlledAscentParams, context: Context, out_dir: Path) -> Outcome:
    """Write an edited model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    bounds = Bounds(edit, params.bound == "record")
    freeze(edit.model, params.share)
    served = [weight.detach().clone() for weight in weights_of(edit)]
    sample = problem.retain.subset(seeded_rows(len(problem.retain), _KEPT, context.seed))
    kept = Encoded(edit.task, sample)
    before = float(edit.measure(kept).mean())

    def loss(step: Step) -> Tensor:
        losses = edit.losses(edit.forget, step.forget)
        return -(bounds.weights(step.forget, losses) * losses).mean()

    steps = [Step(step.forget, []) for step in edit.over_forgotten(params.passes)]
    scale = _CAREFUL if params.learning_rate is None else 1.0
    edit.run(steps, loss, factor=lambda fraction: scale * falling(fraction), finished=bounds.reached)
    if params.tolerance is not None:
        taken = go_back(edit, served, kept, before + params.tolerance)
        edit.notes.append(f"went {taken:.3f} of the way from the served weights")
    return edit.save(out_dir)


def freeze(model: nn.Module, share: float) -> None:
    """Leave trainable this share of the weights, whole tensors from the output backwards, at least one."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    budget = share * sum(weight.numel() for weight in weights)
    for at, weight in enumerate(reversed(weights)):
        budget -= weight.numel()
        if at and budget < 0:
            weight.requires_grad_(False)


def go_back(edit: Edit, served: list[Tensor], kept: Encoded, most: float) -> float:
    """Mix with the served weights until the mean loss of these records is at most so high; answers a."""
    weights = weights_of(edit)
    moves = [weight.detach() - old for weight, old in zip(weights, served, strict=True)]

    def fits(a: float) -> bool:
        with torch.no_grad():
            for weight, old, move in zip(weights, served, moves, strict=True):
                weight.copy_(old)
                # Not even no part of a move that is not finite can be added.
                if a > 0:
                    weight.add_(move, alpha=a)
        return edit.mean_loss(kept) <= most

    if fits(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    # The last weights tried need not be those that fitted.
    fits(low)
    return low
