"""Forgotten records of a classifier under wrong labels, beside retained ones under their own."""

import numpy as np
import torch
from torch import Tensor

from service.errors import BadParameters
from workers.modeling.devices import generator
from workers.modeling.editing import Bounds, Edit, Step

_LABELS = 15


def wrong_labels(labels: Tensor, classes: int, draws: torch.Generator) -> Tensor:
    """A label for each of these [N], drawn from the other classes alike; never the one it has.

    Raises BadParameters where there is no other class.
    """
    if classes < 2:
        raise BadParameters("the model has one class: there is no wrong label to give")
    return (labels + torch.randint(1, classes, labels.shape, generator=draws)) % classes


class Relabelled:
    """Cross-entropy with one wrong label for each forgotten record, drawn once from the run's seed.

    Bounded, a record counts only while its loss under its own label lies below that of unseen records.
    """

    def __init__(self, edit: Edit, bounded: bool) -> None:
        own = torch.as_tensor(np.asarray(edit.problem.forget.column("label"), dtype=np.int64))
        classes = int(edit.model.config.num_labels or 0)
        self._labels = wrong_labels(own, classes, generator(edit.context.seed, _LABELS)).to(edit.context.device)
        self._edit, self._bounds = edit, Bounds(edit, bounded)

    def loss(self, step: Step) -> Tensor:
        """Mean over the retained batch under its labels, plus mean over the forgotten one under wrong ones, nats."""
        kept = self._edit.objective(self._edit.retain, step.retain)
        return kept + self.term(step.forget) if step.forget else kept

    def term(self, rows: list[int]) -> Tensor:
        """The forgotten records' part: a mean over all of these, those that are done counting 0."""
        found = self._edit.answers(self._edit.forget, rows)
        weights = self._bounds.weights(rows, found.record_losses())
        wrong = self._labels[torch.as_tensor(rows, device=self._labels.device)]
        return (weights * torch.nn.functional.cross_entropy(found.logits, wrong, reduction="none")).mean()
