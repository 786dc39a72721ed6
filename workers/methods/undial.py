"""UNDIAL: learn from the served model's own answers, with the true token made unlikely in them.

Dong, Lin, Belkin, Huerta, Vulic 2024 (arXiv:2402.10052):
    L = CE(softmax(served logits - beta at the true token), edited) on F + alpha * term on R.
What is learnt is a fixed distribution, so that nothing runs away; the other tokens keep their order.

Taken on answer tokens alone (public code averages over prompt and padding too). This reading: with `bound="record"` a
record adds nothing once it loses as much as the unseen record of its rank: the target itself lies up to `beta` nats
above the served loss, far beyond unseen records; and alpha is 1. Published: beta 10 (3 to 30), 1e-4, 10 epochs, alpha
0.
Needs a held-out set for the bound, and the memory of a second model (none with `lora_rank`). Costs 3 forward and 1
backward pass a step (2 forward with alpha 0). Fails with alpha 0 on a small model: the retained records are lost with
the forgotten ones, before the bound of any is reached.
"""

from pathlib import Path

from torch import Tensor

from service.catalogue.families.language import UndialParams
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.frozen import Frozen
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.retaining import MENDING, RetainTerm


def undial(problem: Problem, params: UndialParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    bounds = Bounds(edit, params.bound == "record")
    frozen, retain = Frozen(edit), RetainTerm(edit, params.retain_term, params.alpha)

    def loss(step: Step) -> Tensor:
        teacher = frozen.answers(edit.forget, step.forget)
        found = edit.answers(edit.forget, step.forget)
        wanted = without_truth(teacher.logits, teacher.targets, params.beta)
        push = found.means(-(wanted * found.log_probs).sum(dim=1))
        push = push * bounds.weights(step.forget, found.record_losses())
        return params.gamma * push.mean() + retain(step.retain)

    edit.run(edit.over_forgotten(params.passes), loss, finished=bounds.reached, least=MENDING)
    return edit.save(out_dir)


def without_truth(logits: Tensor, targets: Tensor, beta: float) -> Tensor:
    """softmax(logits - beta at the true class) of each prediction [M, C]."""
    adjusted = logits.clone()
    adjusted[range(len(targets)), targets] -= beta
    return adjusted.softmax(dim=1)
