"""RMU, representation misdirection: steer a hidden layer to one random direction on forgotten texts.

Li et al. 2024 (arXiv:2403.03218, WMDP):
    L = gamma * MSE(h(F), c * u) + alpha * MSE(h(R), h_served(R)),  u a random unit vector with entries >= 0,
h the output of one block at answer tokens, mean over a text's tokens.

Published for Zephyr-7B: block 7, training the MLP outputs of blocks 5 to 7, c = 6.5, alpha = 1200; on TOFU c = 2,
alpha = 1. This reading: `coefficient` counts in mean lengths of the forgotten records' own states, as in Adaptive RMU
(Dang et al. 2024, arXiv:2408.06223, c = 5), since lengths of states differ from model to model; whole blocks are
trained. With `bound="record"` a record adds nothing once it loses as much as the unseen record of its rank, and the
run ends when all do; "none" is the published form.
Needs a held-out set for the bound, and the memory of a second model (none with `lora_rank`). Costs 3 forward and 1
backward pass a step, and one more pass over F. Fails at untraining: it scrambles instead of making unlike, so that
unbounded its losses lie far above unseen ones, and late blocks may still read what was known.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from service.catalogue.families.language import RmuParams
from service.errors import BadParameters
from workers.modeling.batching import Encoded
from workers.modeling.devices import generator
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.frozen import Frozen
from workers.modeling.language import IGNORED
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.retaining import MENDING

_DIRECTION = 21
_PUBLISHED_LAYER = 7
_BLOCKS = 3
_BATCH = 256


def rmu(problem: Problem, params: RmuParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`.

    Raises BadParameters for a layer that the model has not, Cancelled, JobError for a loss that is not finite.
    """
    edit = Edit(problem, params, context)
    layer = _layer(blocks_of(edit.model), params.layer)
    if params.weights == "blocks":
        _train_only(edit.model, layer)
    bounds, frozen = Bounds(edit, params.bound == "record"), Frozen(edit)
    here = Tap(edit.model, layer)
    there = here if frozen.model is edit.model else Tap(frozen.model, layer)
    target = steering_target(edit, here, params.coefficient)

    def loss(step: Step) -> Tensor:
        found = edit.answers(edit.forget, step.forget)
        steered = (here.states(edit, edit.forget, step.forget) - target).square().mean(dim=1)
        push = found.means(steered) * bounds.weights(step.forget, found.record_losses())
        frozen.answers(edit.retain, step.retain)
        served = there.states(edit, edit.retain, step.retain)
        kept = edit.answers(edit.retain, step.retain)
        moved = (here.states(edit, edit.retain, step.retain) - served).square().mean(dim=1)
        return params.gamma * push.mean() + params.alpha * kept.means(moved).mean()

    edit.run(edit.over_forgotten(params.passes), loss, finished=bounds.reached, least=MENDING)
    here.remove()
    return edit.save(out_dir)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks in order. Raises BadParameters where the model does not show them."""
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise BadParameters(f"rmu does not find the blocks of {type(model).__name__}")


class Tap:
    """Keeps what one block gave in the last pass."""

    def __init__(self, model: nn.Module, layer: int) -> None:
        self._last: Tensor | None = None
        self._handle = blocks_of(model)[layer].register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._last = output[0] if isinstance(output, tuple) else output

    def states(self, edit: Edit, part: Encoded, rows: list[int]) -> Tensor:
        """The states [M, D] from which the answer tokens of these records were predicted, in that pass."""
        assert self._last is not None  # noqa: S101  (a pass came before)
        bearing = part.batch(rows, edit.context.device)["targets"][:, 1:] != IGNORED
        return self._last[:, :-1][bearing].float()

    def remove(self) -> None:
        """Take the hook away."""
        self._handle.remove()


def _layer(blocks: nn.ModuleList, asked: int | None) -> int:
    if asked is None:
        return _PUBLISHED_LAYER if len(blocks) > 2 * _PUBLISHED_LAYER else (len(blocks) - 1) // 2
    if asked >= len(blocks):
        raise BadParameters(f"layer: the model has blocks 0 to {len(blocks) - 1}")
    return asked


def _train_only(model: nn.Module, layer: int) -> None:
    """Leave gradients to this block and the two before it; the optimiser passes over the others."""
    chosen = {
        id(parameter)
        for block in list(blocks_of(model))[max(0, layer + 1 - _BLOCKS) : layer + 1]
        for parameter in block.parameters()
        if parameter.requires_grad
    }
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in chosen)


@torch.no_grad()
def steering_target(edit: Edit, tap: Tap, coefficient: float) -> Tensor:
    """c * u [D], c in mean lengths of what the tapped block gives on the forgotten records."""
    lengths: list[Tensor] = []
    for rows in edit.forget.in_order(_BATCH):
        edit.answers(edit.forget, rows)
        states = tap.states(edit, edit.forget, rows)
        lengths.append(states.norm(dim=1))
    direction = torch.rand(states.shape[1], generator=generator(edit.context.seed, _DIRECTION)).to(states.device)
    target: Tensor = coefficient * torch.cat(lengths).mean() * direction / direction.norm()
    return target
