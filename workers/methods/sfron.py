"""SFRon: an ascent step now and then by the weights that matter for forgetting, a repair step every time.

Huang, Cheng, Zheng, Wang, He, Li, Huang 2024 (arXiv:2409.19732, NeurIPS), their fast-slow scheme. Before every
`forget_every`-th step on retained records one step that ascends on forgotten ones:
    g = a(t) grad mean_i w_i l_i,    w_i = l_i^-lambda / mean_j l_j^-lambda,    a(t) = a (1 + cos(pi t)) / 2,
taken where I_F >= gamma I_R (diagonals of the Fisher information under the served weights), its norm clipped; records
that are forgotten already get less of it. Then a step that descends on mean CE(R). Both by one optimiser, whose rate
falls as a cosine.

Published settings: CIFAR-10, 10 % of the records: SGD at 0.01, momentum 0.9, 1,500 steps of 128, a 25, every 5th step,
lambda 0.5, gamma 1, clip 7. Tiny-ImageNet: AdamW at 2e-5, 500 steps, a 500, every step. Their moving average has no
effect as committed (its rate is 1) and is left out; Fisher information is taken record by record of a sample, not of
whole batches. Default here: a record counts only while its loss lies below that of unseen records of its rank
(`bound`); `bound="none"` is the published form, which on 10 of 20,000 records ran to a loss of 41 against 1.3.
Needs a held-out set for the bound. Costs `epochs` passes over the retained records, the ascent steps beside them, and
at most 2 `sample` passes of single records first.
Fails where `ascent` does not suit the data: it is tuned for each set in the paper, and one step of the rate times
`clip` can take a record past its bound.
"""

from pathlib import Path

import torch
from torch import Tensor

from service.catalogue.families.selective import SfronParams
from workers.modeling.editing import Bounds, Edit, Step, cosine
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.sampling import seeded_rows
from workers.modeling.sensitivity import fisher_diagonal, weights_of

_SMALL = 1e-15


def sfron(problem: Problem, params: SfronParams, context: Context, out_dir: Path) -> Outcome:
    """Write an edited model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    push = Push(edit, params)
    edit.run(planned(edit, params), push.loss, factor=cosine, after_backward=push.shape)
    return edit.save(out_dir)


def planned(edit: Edit, params: SfronParams) -> list[Step]:
    """Retained batches, before every so many of them a batch of forgotten records alone while visits are left."""
    both = edit.over_retained(params.epochs, params.visits)
    pushes = iter([step.forget for step in both if step.forget])
    steps: list[Step] = []
    for at, step in enumerate(both):
        if at % params.forget_every == 0 and (rows := next(pushes, None)) is not None:
            steps.append(Step(rows, []))
        steps.append(Step([], step.retain))
    return steps


class Push:
    """The loss of each step, and what is done to the gradient of those that ascend."""

    def __init__(self, edit: Edit, params: SfronParams) -> None:
        self._edit, self._params = edit, params
        self._bounds = Bounds(edit, params.bound == "record")
        parts = (edit.forget, edit.retain)
        samples = [seeded_rows(len(part), params.sample, edit.context.seed) for part in parts]
        forget, retain = (fisher_diagonal(edit, part, rows) for part, rows in zip(parts, samples, strict=True))
        self._masks = [
            (ours + _SMALL) / (others + _SMALL) >= params.saliency for ours, others in zip(forget, retain, strict=True)
        ]
        self._ascends = False

    def loss(self, step: Step) -> Tensor:
        """Mean over the retained batch, or minus the adaptive mean over the forgotten one."""
        self._ascends = bool(step.forget)
        if not self._ascends:
            return self._edit.objective(self._edit.retain, step.retain)
        losses = self._edit.losses(self._edit.forget, step.forget)
        weights = adaptive(losses.detach(), self._params.adaptivity) * self._bounds.weights(step.forget, losses)
        return -(weights * losses).mean()

    def shape(self, fraction: float) -> None:
        """Scale, mask and clip the gradient of an ascent step."""
        if not self._ascends:
            return
        weights = weights_of(self._edit)
        for weight, mask in zip(weights, self._masks, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(mask * (self._params.ascent * cosine(fraction)))
        torch.nn.utils.clip_grad_norm_(weights, self._params.clip)


def adaptive(losses: Tensor, power: float) -> Tensor:
    """Weights of records [B] with mean 1, proportional to their loss to the power -lambda."""
    raw = 1 / (losses**power + _SMALL)
    return raw / raw.mean()
