"""The state of an edit at which forgotten records lose most nearly what unseen records of their kind lose."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from service.catalogue.parameters import EditParams
from service.errors import BadModel, BadParameters, MethodRefused
from workers.modeling.directories import sha256_json, write_atomic
from workers.modeling.editing import Edit
from workers.modeling.jsonfiles import read_object
from workers.modeling.states import WEIGHTS, model_state, read_tensors, write_state

_NAME = "nearest.json"


class Nearest:
    """Of the states offered, the one with the least |mean forget loss - mean loss of unseen records of the same kind|.

    Kept in the scratch folder of the run where it has one, so that a run that was interrupted still knows it: what it
    offers again on the way is the same. Raises BadParameters without a held-out set.
    """

    def __init__(self, edit: Edit, params: EditParams) -> None:
        if edit.selection is None:
            raise BadParameters("to choose among states the method needs held-out records: give --holdout")
        self._edit, self._unseen = edit, edit.selection
        forgotten = sorted(np.asarray(edit.problem.forget.ids).tolist())
        self._key = sha256_json([type(params).__name__, params.model_dump(mode="json"), edit.context.seed, forgotten])
        self.distance = float("inf")
        self.step = 0
        self._state: dict[str, Tensor] = {}
        if edit.context.scratch is not None:
            self._read(edit.context.scratch)

    def offer(self) -> None:
        """Measure the model as it is, and keep it where it is nearer than what was kept."""
        forget, expected = self._edit.measure(self._edit.forget).mean(), self.expected()
        if abs(forget - expected) >= self.distance:
            return
        self.distance, self.step = float(abs(forget - expected)), self._edit.steps
        self._state = {name: value.detach().clone() for name, value in model_state(self._edit.model).items()}
        if self._edit.context.scratch is not None:
            self._write(self._edit.context.scratch)

    def expected(self) -> float:
        """Mean loss, nats, that unseen records have under these weights, the classes mixed as among the forgotten."""
        losses = self._edit.measure(self._unseen)
        if "label" not in self._unseen.records.roles:
            return float(losses.mean())
        labels = np.asarray(self._unseen.records.column("label"))
        means = {label: losses[labels == label].mean() for label in np.unique(labels).tolist()}
        # A class that no unseen record has is taken to be as hard as all of them.
        kinds = self._edit.problem.forget.column("label")
        return float(np.mean([means.get(int(label), losses.mean()) for label in kinds]))

    @torch.no_grad()
    def restore(self) -> None:
        """Put the nearest state back into the model."""
        for name, value in model_state(self._edit.model).items():
            value.copy_(self._state[name])

    def _write(self, folder: Path) -> None:
        place = folder / f"nearest-{self.step}"
        shutil.rmtree(place, ignore_errors=True)
        files = write_state(place, self._edit.model, None)
        known = {"key": self._key, "step": self.step, "distance": self.distance, "digest": files[WEIGHTS]}
        write_atomic(folder / _NAME, json.dumps(known).encode())
        for other in folder.glob("nearest-*"):
            if other != place:
                shutil.rmtree(other, ignore_errors=True)

    def _read(self, folder: Path) -> None:
        try:
            known = read_object(folder / _NAME)
            if known.get("key") != self._key:
                return
            tensors = read_tensors(folder / f"nearest-{known['step']}" / WEIGHTS, str(known["digest"]))
        except (BadModel, MethodRefused, KeyError):
            return
        self._state = {name: value.to(self._edit.context.device) for name, value in tensors.items()}
        self.distance, self.step = float(known["distance"]), int(known["step"])
