"""Records as batches: encoded once where they fit in memory, per batch where they do not, in a seeded order."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from service.errors import BadDataset
from workers.modeling.records import Records, chunks
from workers.modeling.tasks import Batch, Encoding, Task

CACHE_BYTES = 1_500_000_000
_CHUNK = 1024
_WINDOW = 16


class Encoded:
    """Records of one task ready to be cut into batches.

    The first records are encoded to learn their size; when all of them would fit in `cache_bytes` they are encoded
    now, otherwise each batch is read and encoded when it is asked for.
    """

    def __init__(self, task: Task, records: Records, cache_bytes: int = CACHE_BYTES) -> None:
        self.task = task
        self.records = records
        self._count = len(records)
        self._encoding: Encoding | None = None
        self._lengths: list[int] | None = None
        if len(records) == 0:
            return
        probe = task.encode(records.take(range(min(_CHUNK, len(records)))))
        rest = chunks(len(records) - len(probe), _CHUNK)
        encoded = (task.encode(records.take([row + len(probe) for row in rows])) for rows in rest)
        if probe.nbytes / len(probe) * len(records) <= cache_bytes:
            self._encoding = task.join([probe, *encoded])
            self._lengths = self._encoding.lengths
        elif probe.lengths is not None:
            # One more pass: the order of a run must not depend on whether its records fit in memory.
            self._lengths = [*probe.lengths, *(length for part in encoded for length in part.lengths or [])]

    def __len__(self) -> int:
        return self._count

    @property
    def cached(self) -> bool:
        """Whether all records are encoded in memory."""
        return self._encoding is not None

    @property
    def lengths(self) -> list[int] | None:
        """Model positions per record, where the task has them."""
        return self._lengths[: self._count] if self._lengths is not None else None

    @property
    def tokens(self) -> int | None:
        """Model positions of all records, where the task has them."""
        lengths = self.lengths
        return sum(lengths) if lengths is not None else None

    def fingerprints(self) -> NDArray[np.uint64] | None:
        """See `Encoding.fingerprints`; None where the records are not held."""
        known = self._encoding.fingerprints() if self._encoding is not None else None
        return known[: self._count] if known is not None else None

    def first(self, count: int) -> "Encoded":
        """The first records alone; what was encoded is shared."""
        part = copy.copy(self)
        part._count = min(count, self._count)
        return part

    def batch(self, indices: list[int], device: torch.device) -> Batch:
        """The tensors of these records on a device; BadDataset when there is nothing to take."""
        if not indices:
            raise BadDataset("a batch of no records was asked for")
        if self._encoding is not None:
            made = self.task.batch(self._encoding, indices)
        else:
            made = self.task.batch(self.task.encode(self.records.take(indices)), list(range(len(indices))))
        return {name: value.to(device, non_blocking=True) for name, value in made.items()}

    def in_order(self, batch_size: int) -> list[list[int]]:
        """Batches that cover the records once; records of similar length share a batch."""
        lengths = self.lengths
        order = np.arange(len(self)) if lengths is None else np.argsort(lengths, kind="stable")
        return [[int(order[row]) for row in rows] for rows in chunks(len(self), batch_size)]

    def shuffled(self, batch_size: int, generator: torch.Generator) -> list[list[int]]:
        """The batches of one epoch in a random order drawn from `generator`.

        Texts are shuffled, sorted by length within windows of sixteen batches, cut, and the batches are shuffled
        again: less padding at nearly the same randomness. A last batch of a single record joins the one before
        it, since batch normalisation cannot take one value.
        """
        order = torch.randperm(len(self), generator=generator).tolist()
        lengths = self.lengths
        if lengths is not None:
            windows = [[order[row] for row in rows] for rows in chunks(len(order), _WINDOW * batch_size)]
            order = [row for window in windows for row in sorted(window, key=lengths.__getitem__)]
        batches = [[order[row] for row in rows] for rows in chunks(len(order), batch_size)]
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2].extend(batches.pop())
        if lengths is not None:
            batches = [batches[at] for at in torch.randperm(len(batches), generator=generator).tolist()]
        return batches

    def cycle(self, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Batches without end, one shuffled epoch after another."""
        while True:
            yield from self.shuffled(batch_size, generator)


def batches_per_epoch(count: int, batch_size: int) -> int:
    """How many batches `Encoded.shuffled` cuts so many records into."""
    batches = -(-count // batch_size)
    alone = (count - 1) % batch_size == 0
    return batches - 1 if batches > 1 and alone else batches


@torch.no_grad()
def record_losses(
    model: torch.nn.Module, encoded: Encoded, device: torch.device, batch_size: int
) -> tuple[NDArray[np.float64], int]:
    """Loss of every record [N] in nats under the current weights, and the number of forward passes it took.

    The model is used in the mode it is in.
    """
    losses = np.zeros(len(encoded))
    batches = encoded.in_order(batch_size)
    for rows in batches:
        values = encoded.task.losses(model, encoded.batch(rows, device))  # type: ignore[arg-type]
        losses[rows] = values.double().cpu().numpy()
    return losses, len(batches)
