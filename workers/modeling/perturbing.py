"""Noise on some of the weights, and the repair after it: what perturbation methods share (2401.04385)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from service.catalogue.families.founding import PerturbationParams
from workers.modeling.devices import generator
from workers.modeling.divergences import jensen_shannon
from workers.modeling.editing import Edit, Step
from workers.modeling.frozen import Frozen

_NOISE = 32


def perturb(parameters: Sequence[nn.Parameter], masks: Sequence[Tensor], params: PerturbationParams, seed: int) -> int:
    """Add Gaussian noise where the masks are true; how many weights that were."""
    draw, changed = generator(seed, _NOISE), 0
    with torch.no_grad():
        for parameter, mask in zip(parameters, masks, strict=True):
            unit = float(parameter.square().mean().sqrt()) if params.noise_unit == "tensor" else 1.0
            drawn = torch.randn(parameter.shape, generator=draw).to(parameter)
            parameter.add_(params.noise * unit * drawn * mask)
            changed += int(mask.sum())
    return changed


def repair(edit: Edit, before: Frozen | None, params: PerturbationParams) -> None:
    """Train on retained records; where there is a model from before, keep its answers on forgotten ones as well."""
    visits = params.visits if before is not None else 0

    def loss(step: Step) -> Tensor:
        kept = edit.objective(edit.retain, step.retain)
        if before is None or not step.forget:
            return kept
        old, new = before.answers(edit.forget, step.forget), edit.answers(edit.forget, step.forget)
        divergence = new.means(jensen_shannon(new.log_probs, old.log_probs)).mean()
        return kept + params.divergence_weight * divergence

    edit.run(edit.over_retained(params.epochs, visits), loss, message="repairing")


def frozen(edit: Edit, params: PerturbationParams) -> Frozen | None:
    """The model as it is, where the repair asks for its answers."""
    return Frozen(edit) if params.divergence_weight > 0 else None
