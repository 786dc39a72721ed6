"""Moves of the weights along one direction, and how far they may go.

For methods that compute where to go in one piece (influence functions, recomputed early gradients) instead of taking
guarded steps: the length of the move is what has to be bounded. A move stays where the forgotten records lose no more
than unseen ones do, and where unseen and retained records lose hardly more than before.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from service.errors import JobError
from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.sampling import seeded_rows

_OTHERS = 256
_SAMPLE = 22
_GAP = 0.25
"""How much of the way to what unseen records lose the retained ones may go."""


class Ray:
    """A straight line through weight space from where the parameters are: `to(t)` puts them at origin + t direction."""

    def __init__(self, parameters: Sequence[nn.Parameter], direction: Tensor) -> None:
        if not bool(torch.isfinite(direction).all()):
            raise JobError("the direction of the move is not finite: raise damping")
        self._parameters = list(parameters)
        self._origin = [parameter.detach().clone() for parameter in self._parameters]
        sizes = [parameter.numel() for parameter in self._parameters]
        parts = direction.split(sizes)
        self._direction = [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]

    def to(self, scale: float) -> None:
        """Go to this place on the line."""
        with torch.no_grad():
            for parameter, origin, direction in zip(self._parameters, self._origin, self._direction, strict=True):
                parameter.copy_(origin).add_(direction, alpha=scale)


class Limits:
    """How far an edited model may go: measured before the first move, asked after each.

    `rise` is the greatest relative rise of the loss of unseen records (of a sample of the selection). Retained records
    (a sample) may lose as much, or a quarter of the way to what unseen ones lose. `bounded` False asks nothing.
    """

    def __init__(self, edit: Edit, bounded: bool, rise: float) -> None:
        self._edit, self._bounded = edit, bounded
        self.ceilings = edit.ceilings().numpy() if bounded else np.zeros(0)
        self._parts: list[tuple[Encoded, float]] = []
        if not bounded:
            return
        ceiling = float(self.ceilings.mean())
        kept = self._sample(edit.retain)
        before = self.mean(kept)
        self._parts.append((kept, max((1 + rise) * before, before + _GAP * max(0.0, ceiling - before))))
        if edit.selection is not None:
            unseen = self._sample(edit.selection)
            self._parts.append((unseen, (1 + rise) * self.mean(unseen)))

    def harmless(self) -> bool:
        """Whether retained and unseen records still lose little more than before."""
        return all(self.mean(part) <= most for part, most in self._parts)

    def short_of_unseen(self) -> bool:
        """Whether the forgotten records lose no more than unseen ones, on the mean."""
        return not self._bounded or self.mean(self._edit.forget) <= float(self.ceilings.mean())

    def hold(self) -> bool:
        """Both."""
        return self.short_of_unseen() and self.harmless()

    def mean(self, part: Encoded) -> float:
        """Mean loss of a part as the weights are, nats; infinite where a loss is not finite."""
        return self._edit.mean_loss(part)

    def _sample(self, part: Encoded) -> Encoded:
        if len(part) <= _OTHERS:
            return part
        rows = seeded_rows(len(part), _OTHERS, self._edit.context.seed, _SAMPLE)
        return Encoded(self._edit.task, part.records.subset(rows))


def largest_within(within: Callable[[float], bool], start: float, doublings: int, halvings: int) -> float:
    """The largest scale found for which `within` holds, by doubling from `start` and bisection; 0 where none does.

    `within` must hold below some scale and nowhere above it. At most `doublings` + `halvings` + 1 questions.
    """
    low, high = 0.0, start
    if within(start):
        low = start
        for _ in range(doublings):
            high = 2 * low
            if not within(high):
                break
            low = high
        else:
            return low
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low
