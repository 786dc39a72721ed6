"""The state of one model on disk: weights, buffers and optimiser state as safetensors, each file known by its SHA-256.

Random states are no part of it: every micro-batch brings its own seed (workers/modeling/training.py).
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from service.errors import MethodRefused
from workers.modeling.directories import sha256_file

WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
_EMPTY = "empty"


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and lasting buffers by name, each shared tensor once."""
    lasting = model.state_dict()
    named = dict(model.named_parameters()) | {n: b for n, b in model.named_buffers() if n in lasting}
    return {name: value.detach() for name, value in named.items()}


def state_digest(model: nn.Module) -> str:
    """SHA-256 of names, types, shapes and values of parameters and lasting buffers, in hex."""
    digest = hashlib.sha256()
    for name, value in sorted(model_state(model).items()):
        held = value.detach().cpu().contiguous()
        digest.update(f"{name} {held.dtype} {tuple(held.shape)}\n".encode())
        digest.update(held.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def state_bytes(model: nn.Module, optimizer_name: str) -> int:
    """Size of one state with its optimiser: AdamW keeps two further numbers a weight, SGD with momentum one."""
    copies = 2 if optimizer_name == "adamw" else 1
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return sum(value.nbytes for value in model_state(model).values()) + copies * trained


def write_state(place: Path, model: nn.Module, optimizer: Optimizer | None) -> dict[str, str]:
    """Write a state into a new folder; answers {file name: SHA-256}. Without an optimiser it can only be read."""
    place.mkdir(parents=True)
    parts = {WEIGHTS: model_state(model)}
    if optimizer is not None:
        parts[OPTIMIZER] = optimizer_state(optimizer)
    for name, tensors in parts.items():
        # An empty safetensors file is valid, but the library wants at least one tensor.
        written = {key: value.to("cpu").contiguous() for key, value in tensors.items()} or {_EMPTY: torch.zeros(1)}
        save_file(written, place / name)
    return {name: sha256_file(place / name) for name in parts}


def read_tensors(path: Path, digest: str | None) -> dict[str, Tensor]:
    """The tensors of a file; MethodRefused where it is missing, damaged or not the one with this SHA-256."""
    name = "/".join(path.parts[-3:])
    if digest is None or not path.is_file() or sha256_file(path) != digest:
        raise MethodRefused(f"{name} is missing or not the file that was recorded")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MethodRefused(f"{name} cannot be read ({type(error).__name__})") from error


def intact(place: Path, files: dict[str, str]) -> bool:
    """Whether a folder holds all files of a state, each as it was recorded."""
    there = all((place / name).is_file() and sha256_file(place / name) == digest for name, digest in files.items())
    return there and files.keys() >= {WEIGHTS, OPTIMIZER}


def restore_state(place: Path, files: dict[str, str], model: nn.Module, optimizer: Optimizer) -> None:
    """Put weights, buffers and optimiser state back.

    Raises MethodRefused for files that are missing, changed, or of another model.
    """
    weights = read_tensors(place / WEIGHTS, files.get(WEIGHTS))
    states = read_tensors(place / OPTIMIZER, files.get(OPTIMIZER))
    own = model_state(model)
    if own.keys() != weights.keys() or any(own[name].shape != weights[name].shape for name in own):
        raise MethodRefused(f"{'/'.join(place.parts[-2:])} is not a state of this model")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[name])
    restore_optimizer(optimizer, states)


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """ "INDEX.KEY" -> tensor; empty before the first step."""
    states: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value.detach()
        for index, state in states.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_state` gave; settings such as the learning rate stay those of the optimiser."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name != _EMPTY:
            index, _, key = name.partition(".")
            states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
