"""Masked small gradients: draw anew the weights on which least depends, then repair on the retained records.

An entry of the NeurIPS 2023 unlearning challenge, MSG in Cadet et al. 2024 (arXiv:2410.01276), where it is the best of
18 methods together with transposed convolutions. In each convolution:
    g = sum over batches of grad CE(R') - sum over batches of grad CE(F),    R' as many retained records as forgotten,
    the `renewed` of weights with the smallest |g| are drawn anew,
    then min_theta mean_{x in R} CE(x; theta), the other weights of the kernel taking `kept_step` of their steps.
Where a network is not mostly convolutions, the same is done to its matrices, embeddings left out (a token that neither
sample holds has no gradient and may still be known from retained records).

Published settings: SGD at 0.001, momentum 0.9, weight decay 5e-4, batch 64, 5 epochs, 30 %, a tenth, the rate rising
over the first half and falling over the second; kernels drawn by He et al. 2015 (fan out). There the gradients are
scaled by a tenth; here the steps are, which is the same for SGD and means something for AdamW. Statistics of batch
normalisation are taken anew from retained records after the draw and stay.
Needs nothing but both kinds of records. Costs two passes over as many records as are forgotten, then `epochs` passes
over the retained ones, forward and backward.
Fails where the repair is too short for what was drawn anew; it spends a whole repair however few are forgotten.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from service.catalogue.families.selective import MaskedSmallGradientsParams
from workers.modeling.devices import generator
from workers.modeling.editing import Edit
from workers.modeling.kernels import mostly_convolutional, renew_statistics
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.records import chunks
from workers.modeling.sampling import seeded_rows
from workers.modeling.sensitivity import summed_gradients, weights_of

_DRAW = 22
_STATISTICS = 20
_SPREAD = 0.02


def masked_small_gradients(
    problem: Problem, params: MaskedSmallGradientsParams, context: Context, out_dir: Path
) -> Outcome:
    """Write an edited model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    weights = renewable(edit.model)
    masks = smallest(gradient_of(edit, weights), params.renewed)
    redraw(edit.model, weights, masks, generator(context.seed, _DRAW))
    steps = edit.over_retained(params.epochs, visits=0)
    renew_statistics(edit, steps[:_STATISTICS])
    slowed = Slowed(weights, masks, params.kept_step)
    edit.run(
        steps,
        lambda step: edit.objective(edit.retain, step.retain),
        factor=rising_and_falling,
        after_backward=slowed.before,
        after_step=slowed.after,
    )
    return edit.save(out_dir)


def rising_and_falling(fraction: float) -> float:
    """From a tenth to 1 half-way, and back."""
    return max(0.1, 1 - abs(2 * fraction - 1))


def renewable(model: nn.Module) -> list[nn.Parameter]:
    """Kernels of a network that is mostly convolutions, otherwise all matrices but embeddings."""
    if mostly_convolutional(model):
        kernels = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d)}
        return [weight for weight in model.parameters() if id(weight) in kernels]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [weight for weight in model.parameters() if weight.ndim >= 2 and id(weight) not in tables]


def gradient_of(edit: Edit, wanted: list[nn.Parameter]) -> list[Tensor]:
    """g of these weights, from a seeded sample of retained records and from the forgotten ones."""
    sample = seeded_rows(len(edit.retain), len(edit.forget), edit.context.seed)
    retain = [sample[rows.start : rows.stop] for rows in chunks(len(sample), edit.settings.retain_batch)]
    forget = [list(rows) for rows in chunks(len(edit.forget), edit.settings.forget_batch)]
    kept = summed_gradients(edit, edit.retain, retain)
    gone = summed_gradients(edit, edit.forget, forget)
    found = {id(w): a - b for w, a, b in zip(weights_of(edit), kept, gone, strict=True)}
    return [found[id(weight)] for weight in wanted]


def smallest(gradients: list[Tensor], share: float) -> list[Tensor]:
    """Boolean masks of this share of each tensor's entries, those of the least magnitude."""
    masks = []
    for gradient in gradients:
        chosen = torch.zeros(gradient.numel(), dtype=torch.bool, device=gradient.device)
        count = round(share * gradient.numel())
        chosen[torch.topk(gradient.abs().flatten(), count, largest=False).indices] = True
        masks.append(chosen.view_as(gradient))
    return masks


@torch.no_grad()
def redraw(model: nn.Module, weights: Sequence[Tensor], masks: Sequence[Tensor], draws: torch.Generator) -> None:
    """Draw the masked entries anew: kernels by He et al. 2015 with fan out, matrices as the configuration says."""
    spread = float(getattr(model.config, "initializer_range", None) or _SPREAD)
    for weight, mask in zip(weights, masks, strict=True):
        fresh = torch.empty(weight.shape)
        if weight.ndim == 4:
            nn.init.kaiming_normal_(fresh, mode="fan_out", nonlinearity="relu", generator=draws)
        else:
            fresh.normal_(0.0, spread, generator=draws)
        weight.copy_(torch.where(mask, fresh.to(weight.device), weight))


class Slowed:
    """Steps of which weights outside the masks take a part."""

    def __init__(self, weights: list[nn.Parameter], masks: list[Tensor], part: float) -> None:
        self._weights, self._old = weights, [torch.empty_like(weight) for weight in weights]
        self._parts = [torch.where(mask, 1.0, part) for mask in masks]

    @torch.no_grad()
    def before(self, _: float) -> None:
        """Remember the weights before a step."""
        for old, weight in zip(self._old, self._weights, strict=True):
            old.copy_(weight)

    @torch.no_grad()
    def after(self, _: float) -> None:
        """Take back the rest of the step."""
        for weight, old, part in zip(self._weights, self._old, self._parts, strict=True):
            weight.copy_(torch.lerp(old, weight, part))
