"""GradDiff: ascend on forgotten records while descending on retained ones.

Liu, Liu, Stone 2022 (arXiv:2203.12817); for language models Maini et al. 2024 (arXiv:2401.06121, TOFU):
    L = -gamma * NLL(F) + alpha * NLL(R).
`retain_term="kl"` puts KL(served || edited) on R in place of NLL(R).

This reading: with `bound="record"` a record adds nothing once it loses as much as the unseen record of its rank, and
the run ends when all do; "none" is the published form. Published for Llama-2-7B: AdamW at 1e-5, weight decay 0.01, one
epoch of warm-up, 10 epochs over F, batch 32, gamma = alpha = 1.
Needs a held-out set for the bound. Costs 2 forward and 1 backward pass a step over both batches ("kl": 3 forward).
Fails unbounded: on TOFU's forget10 the loss runs away (forget quality 1e-239), and a rate ten times smaller does
nothing at all.
"""

from pathlib import Path

from torch import Tensor

from service.catalogue.families.language import GradDiffParams
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.retaining import MENDING, RetainTerm


def grad_diff(problem: Problem, params: GradDiffParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    bounds = Bounds(edit, params.bound == "record")
    retain = RetainTerm(edit, params.retain_term, params.alpha)

    def loss(step: Step) -> Tensor:
        losses = edit.losses(edit.forget, step.forget)
        push = (bounds.weights(step.forget, losses) * losses).mean()
        return retain(step.retain) - params.gamma * push

    edit.run(edit.over_forgotten(params.passes), loss, finished=bounds.reached, least=MENDING)
    return edit.save(out_dir)
