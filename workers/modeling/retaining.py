"""The term that holds the retained records while others are pushed: their training loss, or the served answers."""

from typing import Literal

import torch
from torch import Tensor

from workers.modeling.divergences import kullback_leibler
from workers.modeling.editing import Edit
from workers.modeling.frozen import Frozen

MENDING = 36
"""Least number of steps, as far as they are planned, of a run that could end as soon as nothing is left to push. The
first steps of AdamW are as long as its rate allows, whatever the gradient: a short run that ended on them would leave
the retained records as they were hit."""


class RetainTerm:
    """`weight` times the term of a batch. Make it before the first step.

    "nll": the training loss. "kl": KL(served || edited), mean over predictions; it costs one further forward pass a
    batch, is bounded below at the served model, and does not go on training on the retained records.
    """

    def __init__(self, edit: Edit, kind: Literal["nll", "kl"], weight: float) -> None:
        self._edit, self._weight = edit, weight
        self._frozen = Frozen(edit) if kind == "kl" and weight else None

    def __call__(self, rows: list[int]) -> Tensor:
        """The term of these retained records, a scalar in nats; without a pass where its weight is 0."""
        edit = self._edit
        if not self._weight:
            return torch.zeros((), device=edit.context.device)
        if self._frozen is None:
            return self._weight * edit.objective(edit.retain, rows)
        reference = self._frozen.answers(edit.retain, rows).log_probs
        found = edit.answers(edit.retain, rows)
        return self._weight * kullback_leibler(reference, found.log_probs).mean()
