"""The model as it was served, or another one, answering beside the one that is edited."""

import contextlib
import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from workers.modeling.answers import Answers, answers
from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.low_rank import adapter_off


class Frozen:
    """A copy of the model of an edit, or that model with its adapter off; or the model given, which is then frozen.

    Make it before the first step. The copy takes the memory of one more model, without gradients and optimiser state.
    """

    def __init__(self, edit: Edit, model: PreTrainedModel | None = None) -> None:
        self._edit = edit
        self._off = edit.low_rank and model is None
        self.model = edit.model if self._off else _still(copy.deepcopy(edit.model) if model is None else model)
        # A task keeps how one model's head is computed.
        self._task = copy.copy(edit.task)

    @torch.no_grad()
    def answers(self, part: Encoded, rows: list[int]) -> Answers:
        """What it answers to these records, without gradient: one forward pass of the edit's account."""
        self._edit.forward += 1
        batch = part.batch(rows, self._edit.context.device)
        with adapter_off(self.model) if self._off else contextlib.nullcontext():
            return answers(self._task, self.model, batch)


def _still(model: PreTrainedModel) -> PreTrainedModel:
    nn.Module.requires_grad_(model, False)
    model.eval()
    return model
