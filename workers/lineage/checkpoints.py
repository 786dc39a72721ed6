"""States of a run on disk: which are worth their space, and how they are written without holding up the training.

A state is weights, buffers and optimiser state, as safetensors. Random states are no part of it: every micro-batch
brings its own seed (workers/modeling/training.py).
"""

import hashlib
import json
import math
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from service.errors import MethodRefused
from workers.lineage.facts import CheckpointFacts
from workers.modeling.directories import sha256_file
from workers.modeling.states import model_state, optimizer_state, restore_optimizer

FOLDER = "checkpoints"
_WEIGHTS, _OPTIMIZER, _LAYOUT = "model.", "optimizer.", "layout"
_FEW_EPOCHS, _EPOCH_ENDS = 2, 8
_PENDING = 2


def plan_checkpoints(chosen: str | Sequence[float], per_epoch: int, epochs: int, affordable: int) -> list[int]:
    """The steps after which a state is kept, ascending; at most `affordable` of them, the most useful first.

    `chosen` are fractions of the first epoch, or "auto": sixteenths where there are few epochs, so that the first
    exposure of a record lies late in the run and a repetition from before it saves much, eighths, a quarter and a half
    otherwise, and eight ends of epochs where there are more. Useful are, in this order: the end of the first epoch
    (first-epoch gradients), the fractions (exact replay), the middle of the run (rewinding), other ends of epochs.
    """
    if chosen == "off" or affordable < 1:
        return []
    if chosen == "auto":
        fractions: Sequence[float] = [n / 16 for n in range(1, 16)] if epochs <= _FEW_EPOCHS else [1 / 8, 1 / 4, 1 / 2]
    else:
        fractions = [float(value) for value in chosen]
    inside = [round(share * per_epoch) for share in _by_halves(sorted(fractions))]
    every = -(-epochs // _EPOCH_ENDS) if chosen == "auto" else 1
    ends = [per_epoch * epoch for epoch in (1, *range(every, epochs, every), epochs)]
    middle = per_epoch * max(1, round(epochs / 2))
    wanted = [step for step in dict.fromkeys([ends[0], *inside, middle, *ends]) if 0 < step <= ends[-1]]
    return sorted(wanted[:affordable])


def _by_halves(values: list[float]) -> list[float]:
    """The middle one first, then the middles of both sides and so on: any beginning of the list covers the range."""
    if not values:
        return []
    at = len(values) // 2
    left, right = _by_halves(values[:at]), _by_halves(values[at + 1 :])
    mixed = [value for pair in zip(left, right, strict=False) for value in pair]
    return [values[at], *mixed, *left[len(right) :], *right[len(left) :]]


def pack(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """(one flat tensor on the host for each dtype, the names and shapes in their order as JSON).

    Many small tensors take longer to copy and to write one by one than to train a step on.
    """
    groups: dict[str, list[Tensor]] = {}
    layout = []
    for name, value in tensors.items():
        kind = str(value.dtype).removeprefix("torch.")
        groups.setdefault(kind, []).append(value.reshape(-1))
        layout.append([name, kind, list(value.shape)])
    # A concatenation of one tensor may be that tensor itself, which goes on changing.
    flat = {kind: torch.cat(parts).to("cpu", copy=len(parts) == 1) for kind, parts in groups.items()}
    return flat, json.dumps(layout, separators=(",", ":"))


def unpack(flat: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """What `pack` was given."""
    places = dict.fromkeys(flat, 0)
    tensors = {}
    for name, kind, shape in json.loads(layout):
        begin, size = places[kind], math.prod(shape)
        tensors[name] = flat[kind][begin : begin + size].reshape(shape)
        places[kind] = begin + size
    return tensors


class CheckpointWriter:
    """Writes states in a thread of its own; the training only pays for a copy in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._queue: queue.Queue[tuple[int, dict[str, Tensor], str] | None] = queue.Queue(_PENDING)
        self._facts: list[CheckpointFacts] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def add(self, step: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Take a copy and have it written. Raises what an earlier writing raised."""
        self._raise()
        tensors = {_WEIGHTS + name: value for name, value in model_state(model).items()}
        tensors |= {_OPTIMIZER + name: value for name, value in optimizer_state(optimizer).items()}
        self._queue.put((step, *pack(tensors)))

    def close(self) -> list[CheckpointFacts]:
        """Wait until everything is on disk. Raises OSError where it could not be written."""
        self._queue.put(None)
        self._thread.join()
        self._raise()
        return self._facts

    def abandon(self) -> None:
        """Stop; what is pending is dropped."""
        self._error = self._error or RuntimeError("abandoned")
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._facts.append(save_state(self._folder, *item))
                except Exception as error:  # noqa: BLE001 - raised again in the training's own thread
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def save_state(folder: Path, step: int, flat: dict[str, Tensor], layout: str) -> CheckpointFacts:
    """Write a packed state into `folder`; its names are "model.NAME" and "optimizer.INDEX.KEY"."""
    folder.mkdir(parents=True, exist_ok=True)
    content = save(flat, {_LAYOUT: layout})
    facts = CheckpointFacts(step=step, digest=hashlib.sha256(content).hexdigest(), bytes=len(content))
    (folder / facts.name).write_bytes(content)
    return facts


@dataclass(frozen=True)
class StoredCheckpoint:
    """A state on disk with what is known of it."""

    path: Path
    facts: CheckpointFacts

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.facts.step

    @property
    def intact(self) -> bool:
        """Whether its file is there and the one that was recorded."""
        return self.path.is_file() and sha256_file(self.path) == self.facts.digest

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put weights, buffers and optimiser state back in place.

        Raises MethodRefused for a file that is missing, changed, or of another model.
        """
        tensors = self._read()
        weights, states = (
            {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            for prefix in (_WEIGHTS, _OPTIMIZER)
        )
        own = model_state(model)
        if own.keys() != weights.keys() or any(own[name].shape != weights[name].shape for name in own):
            raise MethodRefused(f"checkpoint {self.path.name} is not of this model")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(weights[name])
        restore_optimizer(optimizer, states)

    def _read(self) -> dict[str, Tensor]:
        if not self.intact:
            raise MethodRefused(f"checkpoint {self.path.name} is missing or not the file that was recorded")
        try:
            with safe_open(self.path, framework="pt") as opened:
                flat = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it has no iterator
                return unpack(flat, opened.metadata()[_LAYOUT])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise MethodRefused(f"checkpoint {self.path.name} cannot be read") from error
