"""KL minimisation: ascend on forgotten records, hold the served model's answers to retained ones.

Maini et al. 2024 (arXiv:2401.06121, TOFU), after Chen and Yang 2023 (arXiv:2310.20150):
    L = -gamma * NLL(F) + alpha * KL(served || edited) on R, mean over predictions.
Unlike NLL(R), the second term is 0 at the served model, so that the retained records are not trained further.

This reading: with `bound="record"` a record adds nothing once it loses as much as the unseen record of its rank, and
the run ends when all do; "none" is the published form. Published for Llama-2-7B: AdamW at 1e-5, 10 epochs, batch 32.
Needs a held-out set for the bound, and the memory of a second model (none with `lora_rank`). Costs 3 forward and 1
backward pass a step. Fails where F and R are alike: what is pushed and what is held are then the same answers.
"""

from pathlib import Path

from torch import Tensor

from service.catalogue.families.language import KlMinParams
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.retaining import MENDING, RetainTerm


def kl_min(problem: Problem, params: KlMinParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    bounds = Bounds(edit, params.bound == "record")
    retain = RetainTerm(edit, "kl", params.alpha)

    def loss(step: Step) -> Tensor:
        losses = edit.losses(edit.forget, step.forget)
        push = (bounds.weights(step.forget, losses) * losses).mean()
        return retain(step.retain) - params.gamma * push

    edit.run(edit.over_forgotten(params.passes), loss, finished=bounds.reached, least=MENDING)
    return edit.save(out_dir)
