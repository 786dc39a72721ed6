"""NPO, negative preference optimisation: forgotten texts become less likely than they were, with less and less force.

Zhang, Lin, Bai, Mei 2024 (arXiv:2404.05868):
    L = -gamma * (2 / beta) * log sigmoid(beta * (NLL(F) - NLL_served(F))) + alpha * term on R,
NLL the sum over a text's tokens. At the start it is plain ascent; a text that is much less likely than before adds
little. `retain_term="kl"` is the reading that the authors report beside the training loss.

The served model enters by one number a text, taken before the first step, so that there is no second model. This
reading: with `bound="record"` a record adds nothing once it loses as much as the unseen record of its rank, and the run
ends when all do; "none" is the published form. gamma is 0.1 and not 1: the term sums over the tokens of a text and the
other is a mean, so that at rates that move a small model it overruns both bound and retained records in few steps.
Published for Llama-2-7B: beta 0.1, gamma 1, alpha 1, AdamW at 1e-5, 10 epochs, batch 32.
Needs a held-out set for the bound. Costs 2 forward and 1 backward pass a step over both batches, and one more pass over
F. Fails at the published rate on small models, where it does nothing; outside re-runs of TOFU's forget01 differ from
0.006 to 0.92 in forget quality, so its length is a bound here and not a number of epochs.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from service.catalogue.families.language import NpoParams
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.retaining import MENDING, RetainTerm


def npo(problem: Problem, params: NpoParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    bounds = Bounds(edit, params.bound == "record")
    retain = RetainTerm(edit, params.retain_term, params.alpha)
    served = torch.as_tensor(edit.measure(edit.forget), dtype=torch.float32, device=context.device)

    def loss(step: Step) -> Tensor:
        found = edit.answers(edit.forget, step.forget)
        losses = found.losses()
        gap = found.sums(losses - served[step.forget][found.rows])
        push = preference(gap, params.beta) * bounds.weights(step.forget, found.means(losses))
        return params.gamma * push.mean() + retain(step.retain)

    edit.run(edit.over_forgotten(params.passes), loss, finished=bounds.reached, least=MENDING)
    return edit.save(out_dir)


def preference(gap: Tensor, beta: float) -> Tensor:
    """-(2 / beta) log sigmoid(beta * gap) of each text [B], from how much more it loses than it did [B], nats."""
    return -2 / beta * logsigmoid(beta * gap)
