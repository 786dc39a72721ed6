"""Groups of parameters by their place in a network: all, embeddings, the last blocks, the linear head."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from service.errors import BadParameters

Group = Literal["all", "embedding", "last_blocks", "head"]

_HEADS = ("classifier", "score", "fc")
_EMBEDDERS = ("embedder", "embeddings")


def parameters_of(model: nn.Module, group: Group, blocks: int = 1) -> list[nn.Parameter]:
    """The parameters of a group, each once, in the order of the model.

    "embedding": token and position embeddings, for images what stands before the first block. "last_blocks": so many
    of the repeated blocks, from the end. "head": the linear layer that gives the logits; where it is tied to the token
    embedding (GPT-2) both groups hold that matrix. Raises BadParameters where the model has no such part.
    """
    found = {
        "all": lambda: list(model.parameters()),
        "embedding": lambda: _embedding(model),
        "last_blocks": lambda: [p for block in _blocks(model)[-blocks:] for p in block.parameters()],
        "head": lambda: list(head_of(model).parameters()),
    }[group]()
    if not found:
        raise BadParameters(f"the model has no parameters in the group {group!r}: use all")
    wanted = {id(parameter) for parameter in found}
    return [parameter for parameter in model.parameters() if id(parameter) in wanted]


def head_of(model: nn.Module) -> nn.Linear:
    """The linear layer whose outputs are the logits. Raises BadParameters where there is none, or several."""
    named = [getattr(model, name) for name in _HEADS if isinstance(getattr(model, name, None), nn.Module)]
    layers = [layer for module in named for layer in module.modules() if isinstance(layer, nn.Linear)]
    if layers:
        return layers[-1]
    outputs = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(outputs, nn.Linear):
        return outputs
    raise BadParameters("the model has no single linear head: use a method that edits all weights")


def tied(model: nn.Module) -> bool:
    """Whether the head shares its weights with another layer."""
    weight = head_of(model).weight
    holders = [module for module in model.modules() for p in module.parameters(recurse=False) if p is weight]
    return len(holders) > 1


def size_in_bytes(parameters: list[nn.Parameter]) -> int:
    """Bytes of one gradient of these parameters."""
    return sum(parameter.nbytes for parameter in parameters)


def flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Tensors end to end as one vector."""
    return torch.cat([value.reshape(-1) for value in tensors])


def _embedding(model: nn.Module) -> list[nn.Parameter]:
    tables = [p for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()]
    if tables:
        return tables
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _EMBEDDERS:
            return list(module.parameters())
    first = next((module for module in model.modules() if [*module.parameters(recurse=False)]), None)
    return list(first.parameters(recurse=False)) if first is not None else []


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The longest list of blocks that lies in no other list."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [list(module) for name, module in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    longest = max(outer, key=len, default=[])
    if not longest:
        raise BadParameters("the model has no list of blocks to take the last of: use all")
    return longest
