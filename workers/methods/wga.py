"""WGA, weighted gradient ascent: ascend on forgotten records, each prediction by the probability it still has.

Wang, Zhou, Zhou, Shin, Han, Weinberger 2025 (arXiv:2502.19301):
    L = -gamma * mean over tokens of p^beta * NLL + alpha * term on R,  p = exp(-NLL) without gradient,
so that what is already forgotten is not pushed on: the force of a token falls as its probability does.

This reading: the mean is taken over the tokens of a record, then over records; with `bound="record"` a record adds
nothing once it loses as much as the unseen record of its rank, and the run ends when all do; "none" is the published
form. Published: beta 1 (0 is plain ascent), AdamW at 1e-5, 5 to 10 epochs.
Needs a held-out set for the bound. Costs 2 forward and 1 backward pass a step over both batches ("kl": 3 forward).
Fails softly: the weight slows a run-away and does not end it.
"""

from pathlib import Path

from torch import Tensor

from service.catalogue.families.language import WgaParams
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.retaining import MENDING, RetainTerm


def wga(problem: Problem, params: WgaParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    bounds = Bounds(edit, params.bound == "record")
    retain = RetainTerm(edit, params.retain_term, params.alpha)

    def loss(step: Step) -> Tensor:
        found = edit.answers(edit.forget, step.forget)
        losses = found.losses()
        push = found.means(weighted(losses, params.beta)) * bounds.weights(step.forget, found.means(losses))
        return retain(step.retain) - params.gamma * push.mean()

    edit.run(edit.over_forgotten(params.passes), loss, finished=bounds.reached, least=MENDING)
    return edit.save(out_dir)


def weighted(losses: Tensor, beta: float) -> Tensor:
    """p^beta * l of each prediction [M], the weight without gradient."""
    return (-beta * losses.detach()).exp() * losses
