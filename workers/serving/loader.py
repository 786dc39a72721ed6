"""From a pointer to a model in memory: the directory's digests are checked before a single weight is read.

A model that is registered to be served in fewer bits is rounded here, by the same function as its candidates were when
they were judged (workers/modeling/rounding.py): to nearest, one step for each output channel. It is a simulation in
float32, which answers as the rounded weights would and saves neither memory nor time.
"""

import threading
from dataclasses import dataclass, replace

import torch

from service.catalogue.precisions import FULL
from service.errors import BadModel
from workers.modeling.directories import directory_manifest, sha256_json
from workers.modeling.loading import LoadedModel, load_model
from workers.modeling.rounding import rounded
from workers.serving.pointer import Pointer


@dataclass(frozen=True, eq=False)
class Served:
    """One version in memory. Requests hold it while they run, so it lives exactly as long as somebody needs it.

    `lock` is the server's one lock around computation: on one CPU two forward passes at once take longer than one
    after the other.
    """

    pointer: Pointer
    loaded: LoadedModel
    lock: threading.Lock

    @property
    def number(self) -> int:
        return self.pointer.number


def load_served(pointer: Pointer, device: torch.device, lock: threading.Lock) -> Served:
    """Load a version whose files are exactly those that were published, rounded to the precision it is served in.

    Raises BadModel where the directory is gone, its digest differs from the version's, or it cannot be loaded.
    """
    where = f"version {pointer.number} of model {pointer.name!r}"
    if not pointer.path.is_dir():
        raise BadModel(f"{where}: its directory is missing: restore {pointer.path} or publish another version")
    try:
        found = sha256_json(directory_manifest(pointer.path))
    except OSError as error:
        raise BadModel(f"{where}: its files cannot be read ({type(error).__name__})") from error
    if found != pointer.digest:
        raise BadModel(f"{where}: the files have digest {found[:12]}, published was {pointer.digest[:12]}: not served")
    loaded = load_model(pointer.path, pointer.task, device)
    if pointer.precision != FULL:
        loaded = replace(loaded, model=rounded(loaded.model, pointer.precision))
    return Served(pointer, loaded, lock)
