"""Learning events: how a training came to know each record, as means over its passes.

Averaged over training they are proxies of memorization, all four with negative sign (Zhao et al. 2024,
arXiv 2410.16516). Predictions of many small batches are looked at together: one at a time would show in the training.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.modeling.tasks import Predictions

EVENTS = ("confidence", "max_confidence", "negative_entropy", "binary_accuracy")
_HELD = 1 << 16


@torch.no_grad()
def learning_events(logits: Tensor, targets: Tensor) -> Tensor:
    """What a prediction tells about how well its record is known: float32 [4, M] for logits [M, C], targets [M].

    Rows: probability of the true class, largest probability, sum of p log p (NEGATIVE entropy, nats) and whether the
    largest is the true one.
    """
    log_p = logits.float().log_softmax(dim=1)
    p = log_p.exp()
    largest, predicted = p.max(dim=1)
    own = p.gather(1, targets.unsqueeze(1)).squeeze(1)
    # In place and summed: an einsum of the same is three times slower on a CPU.
    return torch.stack([own, largest, p.mul_(log_p).sum(dim=1), (predicted == targets).float()])


class EventMeans:
    """Sums up the events of N records. Holds at most so many logits as a cache does before they are looked at."""

    def __init__(self, records: int) -> None:
        self._sums = np.zeros((records, len(EVENTS)))
        self.times: NDArray[np.int64] = np.zeros(records, dtype=np.int64)
        self._waiting: list[tuple[list[int], Predictions]] = []
        self._held = 0

    def add(self, rows: list[int], predictions: Predictions) -> None:
        """Note a pass over these records, each at most once in it."""
        self._waiting.append((rows, predictions))
        self._held += predictions.logits.numel()
        if self._held > _HELD:
            self._look()

    def means(self) -> NDArray[np.float32]:
        """float32 [N, 4]; zeros for a record of no pass."""
        self._look()
        return np.asarray(self._sums / np.maximum(self.times, 1)[:, None], dtype=np.float32)

    def _look(self) -> None:
        if not self._waiting:
            return
        logits = torch.cat([seen.logits for _, seen in self._waiting])
        targets = torch.cat([seen.targets for _, seen in self._waiting])
        events = learning_events(logits, targets).double().cpu().numpy()
        rows = np.concatenate([np.asarray(rows) for rows, _ in self._waiting])
        begins = np.cumsum([0, *(len(rows) for rows, _ in self._waiting)])
        # A record's events in one pass are the mean over its predictions there.
        places = np.concatenate([_places(*pair) for pair in zip(begins, self._waiting, strict=False)])
        counts = np.bincount(places, minlength=len(rows))
        for at, values in enumerate(events):
            means = np.bincount(places, values, minlength=len(rows)) / counts
            np.add.at(self._sums[:, at], rows, means)
        np.add.at(self.times, rows, 1)
        self._waiting.clear()
        self._held = 0


def _places(begin: int, item: tuple[list[int], Predictions]) -> NDArray[np.int64]:
    rows, seen = item
    return begin + (np.arange(len(rows)) if seen.rows is None else seen.rows.cpu().numpy())
