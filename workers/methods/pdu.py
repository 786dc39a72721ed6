"""PDU, constrained entropic unlearning: flatten the logits on forgotten texts under a limit for the retained ones.

Entesari, Hatami, Khaziev, Ramakrishna, Fazlyab 2025 (arXiv:2506.05314):
    min (max logit - mean logit)^2 on F,  subject to NLL(R) <= epsilon,
by primal-dual steps: L = flattening + m * (NLL(R) - epsilon), m <- max(0, m + dual_step * (NLL(R) - epsilon)).
At its least, 0, the answer is uniform; unlike an entropy its gradient does not vanish on the way there.

`epsilon` defaults to (1 + tolerance) times the served model's loss on R, the choice that the paper names. On answer
tokens alone. This reading: the multiplier follows each step's batch, after `warmup`; with `bound="record"` a record
adds nothing once it loses as much as the unseen record of its rank, and the run ends when all do; "none" is the
published form. Published for TOFU: epsilon 0.3, a first multiplier of 100, dual step 5, a warm-up of 5 of 10 epochs,
AdamW at 1e-5. A run that was interrupted goes on with the first multiplier.
Needs a held-out set for the bound. Costs 2 forward and 1 backward pass a step over both batches, and one pass over a
sample of R. Fails where epsilon is below what the retained records lose on the way: the multiplier grows and nothing is
forgotten.
"""

from pathlib import Path

import torch
from torch import Tensor

from service.catalogue.families.language import PduParams
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.retaining import MENDING


def pdu(problem: Problem, params: PduParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    bounds = Bounds(edit, params.bound == "record")
    steps = edit.over_forgotten(params.passes)
    limit = params.epsilon or (1 + params.tolerance) * _served_loss(edit, steps)
    dual = Multiplier(params.multiplier, params.dual_step, limit, round(params.warmup * len(steps)))

    def loss(step: Step) -> Tensor:
        found = edit.answers(edit.forget, step.forget)
        push = found.means(flatness(found.logits)) * bounds.weights(step.forget, found.record_losses())
        kept = edit.objective(edit.retain, step.retain)
        return push.mean() + dual.weigh(kept)

    edit.run(steps, loss, finished=bounds.reached, least=MENDING)
    return edit.save(out_dir)


def flatness(logits: Tensor) -> Tensor:
    """(max - mean)^2 of each prediction's logits [M, C] -> [M]."""
    return (logits.amax(dim=1) - logits.mean(dim=1)).square()


class Multiplier:
    """The weight of the constraint, which follows how far it is broken once the warm-up is over."""

    def __init__(self, first: float, step: float, limit: float, warmup: int) -> None:
        self._value = torch.tensor(first)
        self._step, self._limit, self._left = step, limit, warmup

    def weigh(self, kept: Tensor) -> Tensor:
        """The multiplier, as it was before this step, times the excess over the limit; then it follows."""
        excess = kept - self._limit
        self._value = self._value.to(kept.device)
        weighed = self._value * excess
        if self._left > 0:
            self._left -= 1
        else:
            self._value = (self._value + self._step * excess.detach()).clamp_min(0.0)
        return weighed


@torch.no_grad()
def _served_loss(edit: Edit, steps: list[Step]) -> float:
    """The served model's training loss on the retained records of the first steps, nats."""
    values = [edit.objective(edit.retain, step.retain) for step in steps[:8]]
    return float(torch.stack(values).mean())
