"""Extrapolation: train to know the forgotten records still better, then go as far in the opposite direction.

Huang et al. 2026 (arXiv:2602.06441, "Memorize to Forget", MOX):
    theta_mem = argmin NLL(F) + alpha * KL(served || edited) on R,   theta = theta_0 - strength * (theta_mem - theta_0).
Only losses that are bounded below are ever minimised.

The paper gives the strength by hand, and a variant with momentum that renews it while training, which is not here. This
reading finds it: doubled, then bisected, to the largest at which the forgotten records lose no more than unseen ones
and a sample of the retained records loses no more than that either. So it is bounded on both sides; where the forgotten
records already lose what unseen ones do the model stays as it is.
Needs a held-out set, and the memory of a second model (none with `lora_rank`) and of one more set of weights. Costs 3
forward and 1 backward pass a step, and one pass over F and up to 256 retained records for each strength tried, about
15. Fails where F is known by heart: its gradients are then small and the direction is noise, and a straight line leaves
the region in which the model works.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from service.catalogue.families.language import ExtrapolationParams
from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit, Step
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.records import Records
from workers.modeling.retaining import RetainTerm
from workers.modeling.sampling import seeded_rows

_SAMPLE = 22
_RETAINED = 256


def extrapolation(problem: Problem, params: ExtrapolationParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    kept = Encoded(edit.task, _sample(problem, context.seed))
    limit = float(edit.ceilings().mean())
    retain = RetainTerm(edit, "kl", params.alpha)
    served = {parameter: parameter.detach().clone() for parameter in edit.model.parameters()}

    def loss(step: Step) -> Tensor:
        return edit.objective(edit.forget, step.forget) + retain(step.retain)

    edit.run(edit.over_forgotten(params.passes), loss, message="memorising")
    edit.merge()
    strength = go_opposite(edit, served, kept, limit, params)
    edit.notes.append(f"went {strength:.3g} times as far as the way of memorising, in the opposite direction")
    return edit.save(out_dir)


def go_opposite(
    edit: Edit, served: dict[nn.Parameter, Tensor], kept: Encoded, limit: float, params: ExtrapolationParams
) -> float:
    """Put the model as far opposite to where it is, seen from the served weights, as these records keep within the
    limit of their mean loss; answers the strength."""
    line = _Line(edit.model, served)

    def too_far(strength: float) -> bool:
        line.move(strength)
        return any(edit.mean_loss(part) > limit for part in (edit.forget, kept))

    strength = furthest(too_far, params.most, params.rounds)
    line.move(strength)
    return strength


def furthest(too_far: Callable[[float], bool], most: float, rounds: int) -> float:
    """The largest strength found that is not too far: 1, doubled up to `most`, then `rounds` halvings."""
    low, high = 0.0, min(1.0, most)
    while not too_far(high):
        if high == most:
            return most
        low, high = high, min(2 * high, most)
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (low, middle) if too_far(middle) else (middle, high)
    return low


def _sample(problem: Problem, seed: int) -> Records:
    return problem.retain.subset(seeded_rows(len(problem.retain), _RETAINED, seed, _SAMPLE))


class _Line:
    """The straight line through the served and the memorising weights."""

    def __init__(self, model: nn.Module, served: dict[nn.Parameter, Tensor]) -> None:
        ways = [(parameter, served[parameter]) for parameter in model.parameters()]
        self._ways = [(p, start, p.detach() - start) for p, start in ways]

    @torch.no_grad()
    def move(self, strength: float) -> None:
        """Put the model at served - strength * (memorising - served)."""
        for parameter, start, way in self._ways:
            parameter.copy_(start)
            # Not even no part of a way that is not finite can be gone.
            if strength > 0:
                parameter.sub_(way, alpha=strength)
