"""Models that are asked and never trained, and how far answers are from theirs."""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workers.modeling.answers import Answers
from workers.modeling.batching import Encoded
from workers.modeling.divergences import kullback_leibler
from workers.modeling.editing import Edit
from workers.modeling.ensembles import Ensemble
from workers.modeling.frozen import Frozen
from workers.modeling.loading import AUTO_MODELS

_ROOM = 256 * 2**20


class Teacher:
    """A frozen model in evaluation mode: the served one as it is when this is made, or the one given.

    Its logits for forgotten records, which are met many times, are kept as long as 256 MiB hold them.
    """

    def __init__(self, edit: Edit, model: PreTrainedModel | None = None) -> None:
        self._edit, self._frozen = edit, Frozen(edit, model)
        self._kept: dict[int, Tensor] = {}
        self._room = _ROOM

    @torch.no_grad()
    def logits(self, part: Encoded, rows: Sequence[int]) -> Tensor:
        """float32 [M, C] for these records, in the order of the predictions of `Edit.answers`."""
        forgotten = part is self._edit.forget
        if forgotten and all(row in self._kept for row in rows):
            return torch.cat([self._kept[row] for row in rows])
        found = self._frozen.answers(part, list(rows))
        if forgotten:
            self._keep(rows, found)
        return found.logits

    def _keep(self, rows: Sequence[int], found: Answers) -> None:
        counts = torch.bincount(found.rows, minlength=found.records).tolist()
        for row, piece in zip(rows, found.logits.split(counts), strict=True):
            if row not in self._kept and piece.nbytes <= self._room:
                self._kept[row] = piece.clone()
                self._room -= piece.nbytes


def untrained(edit: Edit) -> PreTrainedModel:
    """A model of the served one's architecture with initial weights drawn anew, on the same device."""
    served: nn.Module = edit.model
    made: nn.Module = _from_config(edit)
    if isinstance(served, Ensemble):
        made = Ensemble({name: _from_config(edit) for name in served.members}, served.reason)
    return cast(PreTrainedModel, made.to(edit.context.device))


def _from_config(edit: Edit) -> PreTrainedModel:
    made: PreTrainedModel = AUTO_MODELS[edit.problem.task_name].from_config(copy.deepcopy(edit.model.config))
    return made


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of each prediction [M] from logits [M, C], nats.

    Both are softened by T; T^2 keeps gradients of one size whatever T is (Hinton et al. 2015, arXiv 1503.02531).
    """
    wanted, got = (torch.log_softmax(logits / temperature, dim=1) for logits in (teacher, student))
    return kullback_leibler(wanted, got) * temperature**2
