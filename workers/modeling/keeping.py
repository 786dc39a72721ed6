"""The state of a long edit, kept while it runs, so that one that was interrupted goes on where it was."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn
from torch.optim import Optimizer

from service.errors import BadModel, MethodRefused
from workers.modeling.directories import write_atomic
from workers.modeling.jsonfiles import read_object
from workers.modeling.states import intact, restore_state, write_state

KEEP_SECONDS = 60.0
_NAME = "edit.json"


@dataclass(frozen=True)
class Position:
    """What an edit has counted so far; `curve` as in `Outcome`."""

    forward: int
    backward: int
    steps: int
    curve: list[dict[str, float]]


class _Kept(BaseModel):
    """One state on disk: after `step` steps of phase `phase`, in the folder `place` with the digests of its files."""

    model_config = ConfigDict(extra="forbid")

    key: str
    phase: int
    step: int
    place: str
    files: dict[str, str]
    forward: int
    backward: int
    steps: int
    curve: list[dict[str, float]]


class Keeper:
    """Keeps the state of one run in `folder` (None: nowhere); `key` says which run a state belongs to.

    A run has phases, counted from 1. What a method does to weights between them is repeated on the way and then
    replaced by the state that was kept.
    """

    def __init__(self, folder: Path | None, key: str, model: nn.Module, optimizer: Optimizer) -> None:
        self._folder, self._key = folder, key
        self._model, self._optimizer = model, optimizer
        self._phase, self._last = 0, time.monotonic()
        self._found = self._read()

    def begin(self, steps: int) -> tuple[int, Position | None]:
        """(the step that the next phase of so many begins with, what was counted until then where a state was put
        back). A phase that was over is skipped.

        Raises MethodRefused where a state cannot be put back after phases were skipped for it.
        """
        self._phase += 1
        found = self._found
        if found is None or found.phase < self._phase or self._folder is None:
            return 0, None
        if found.phase > self._phase:
            return steps, None
        self._found = None
        try:
            restore_state(self._folder / found.place, found.files, self._model, self._optimizer)
        except MethodRefused:
            if self._phase > 1:
                raise
            return 0, None
        return found.step, Position(found.forward, found.backward, found.steps, found.curve)

    def stepped(self, step: int, position: Callable[[], Position]) -> None:
        """Keep the state, where the last one is old."""
        if self._folder is None or time.monotonic() - self._last < KEEP_SECONDS:
            return
        place = f"state-{self._phase}-{step}"
        shutil.rmtree(self._folder / place, ignore_errors=True)
        files = write_state(self._folder / place, self._model, self._optimizer)
        kept = _Kept(key=self._key, phase=self._phase, step=step, place=place, files=files, **vars(position()))
        write_atomic(self._folder / _NAME, kept.model_dump_json().encode())
        self._sweep(keep=place)
        self._last = time.monotonic()

    def _sweep(self, keep: str) -> None:
        assert self._folder is not None  # noqa: S101  (something was written there)
        for path in self._folder.glob("state-*"):
            if path.name != keep:
                shutil.rmtree(path, ignore_errors=True)

    def _read(self) -> _Kept | None:
        if self._folder is None or not (self._folder / _NAME).is_file():
            return None
        try:
            content: dict[str, Any] = read_object(self._folder / _NAME)
            kept = _Kept.model_validate(content)
        except (BadModel, ValidationError):
            return None
        # Looked at before any phase is skipped: what a damaged state stood for has to be done again from the start.
        mine = kept.key == self._key and intact(self._folder / kept.place, kept.files)
        return kept if mine else None
