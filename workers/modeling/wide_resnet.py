"""Many ResNets as one: an ensemble that plain transformers loads, with the mean of the members' logits as its own.

Kernels become block-diagonal (the first layer's are stacked, since all members see the same image), normalisations are
laid end to end, and the last layer takes the mean. Channels of different members never meet before that.

The zeros are stored and multiplied: S members take S times the memory and the arithmetic of S separate models.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, ResNetForImageClassification

LIMIT = 1 << 30
"""Bytes that a merged model may take: beyond it, separate members are smaller and faster."""
_REDUCTION = 4


def obstacle(model: PreTrainedModel, members: int, limit: int = LIMIT) -> str | None:
    """Why so many models like this one cannot be merged, in one line; None where they can."""
    if not isinstance(model, ResNetForImageClassification):
        return f"{type(model).__name__} cannot be merged: ResNets can"
    config: Any = model.config
    if config.layer_type == "bottleneck" and any(width % _REDUCTION for width in config.hidden_sizes):
        return f"bottleneck widths that {_REDUCTION} does not divide cannot be merged"
    size = members**2 * sum(value.nbytes for value in model.state_dict().values())
    if size > limit:
        told = f"{size / 2**20:,.0f} MiB, over the limit of {limit / 2**20:,.0f} MiB"
        return f"merged, the {members} members would take {told}"
    return None


def merge_resnets(model: PreTrainedModel, states: Sequence[dict[str, Tensor]]) -> PreTrainedModel:
    """One ResNet whose logits are the mean of those of the members: `states` in the architecture of `model`."""
    config: Any = copy.deepcopy(model.config)
    config.embedding_size *= len(states)
    config.hidden_sizes = [width * len(states) for width in config.hidden_sizes]
    with torch.device("meta"):
        wide = ResNetForImageClassification(config)
    merged = {
        name: _merged(name, [state[name] for state in states], value.shape) for name, value in wide.state_dict().items()
    }
    wide.load_state_dict(merged, assign=True)
    wide.eval()
    return wide


def _merged(name: str, parts: list[Tensor], shape: torch.Size) -> Tensor:
    first = parts[0]
    if name.startswith("classifier."):
        # The mean over members of W_s h_s + b_s.
        return torch.cat(parts, dim=1) / len(parts) if first.ndim == 2 else torch.stack(parts).mean(dim=0)
    if first.ndim == 0:
        return torch.stack(parts).amax()
    if first.ndim == 1 or shape[1] == first.shape[1]:
        return torch.cat(parts)
    out, inner = first.shape[:2]
    kernel = torch.zeros(shape, dtype=first.dtype)
    for at, part in enumerate(parts):
        kernel[at * out : (at + 1) * out, at * inner : (at + 1) * inner] = part
    return kernel
