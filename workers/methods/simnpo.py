"""SimNPO: NPO by the token, without the served model as its measure.

Fan, Liu, Zhang, Jia, Zhang, Liu 2024 (arXiv:2410.07163):
    L = -(2 / beta) * log sigmoid(beta * (NLL(F) / length - delta)) + alpha * term on R,
so that texts that are already unlikely get less force, and long texts no more than short ones.

This reading: with `bound="record"` a record adds nothing once it loses as much as the unseen record of its rank, and
the run ends when all do; "none" is the published form. Published for Llama-2-7B on TOFU: beta 4.5 (2.5 on forget05),
delta 0, gamma 0.125 (0.1375), AdamW at 1e-5, 10 epochs.
Needs a held-out set for the bound. Costs 2 forward and 1 backward pass a step over both batches. Fails at its defaults
on many models: the first force on a text of loss l is 2 * sigmoid(-beta * l), so that texts of 1 nat a token are hardly
pushed; outside re-runs with the published settings found forget qualities from 1e-198 to 0.99.
"""

from pathlib import Path

from torch import Tensor
from torch.nn.functional import logsigmoid

from service.catalogue.families.language import SimNpoParams
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.retaining import MENDING, RetainTerm


def simnpo(problem: Problem, params: SimNpoParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    bounds = Bounds(edit, params.bound == "record")
    retain = RetainTerm(edit, params.retain_term, params.alpha)

    def loss(step: Step) -> Tensor:
        losses = edit.losses(edit.forget, step.forget)
        push = simple_preference(losses, params.beta, params.delta) * bounds.weights(step.forget, losses)
        return params.gamma * push.mean() + retain(step.retain)

    edit.run(edit.over_forgotten(params.passes), loss, finished=bounds.reached, least=MENDING)
    return edit.save(out_dir)


def simple_preference(losses: Tensor, beta: float, delta: float) -> Tensor:
    """-(2 / beta) log sigmoid(beta * (l - delta)) of each text [B], from its loss a token [B], nats."""
    return -2 / beta * logsigmoid(beta * (losses - delta))
