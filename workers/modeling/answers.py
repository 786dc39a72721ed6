"""What a model answers to a batch, with gradient, in one shape for classifiers and language models."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.modeling.language import CausalLanguageModelling
from workers.modeling.tasks import Batch, ClassifierOutputs, Task


@dataclass(frozen=True)
class Answers:
    """One prediction a record for a classifier, one a loss-bearing token for a language model.

    `logits` float32 [M, C] and true `targets` [M]; `rows` int64 [M], the position of each prediction's record in the
    batch of `records` [B]. Predictions lie in the order of their records.
    """

    logits: Tensor
    targets: Tensor
    rows: Tensor
    records: int

    @cached_property
    def log_probs(self) -> Tensor:
        """Log-probabilities [M, C], nats. Taken once: they are most of what a loss costs beside the pass."""
        return self.logits.log_softmax(dim=1)

    def losses(self) -> Tensor:
        """Cross-entropy of each prediction [M], nats."""
        return -self.log_probs.gather(1, self.targets[:, None])[:, 0]

    def sums(self, values: Tensor) -> Tensor:
        """Sums over each record [B] of values per prediction [M]."""
        return torch.zeros(self.records, device=values.device, dtype=values.dtype).index_add(0, self.rows, values)

    def means(self, values: Tensor) -> Tensor:
        """Means over each record [B] of values per prediction [M]."""
        return self.sums(values) / self.sums(torch.ones_like(values)).clamp_min(1.0)

    def record_losses(self) -> Tensor:
        """Loss of each record [B], nats; for a language model the mean over its loss-bearing tokens."""
        return self.means(self.losses())


def answers(task: Task, model: PreTrainedModel, batch: Batch) -> Answers:
    """One forward pass; gradients follow the mode that the caller has set."""
    if isinstance(task, CausalLanguageModelling):
        logits, targets, rows = task.predictions(model, batch)
        return Answers(logits, targets, rows, len(batch["input_ids"]))
    found = task.outputs(model, batch)
    assert isinstance(found, ClassifierOutputs)  # noqa: S101  (all but language models are classifiers)
    count = len(found.labels)
    return Answers(found.logits, found.labels, torch.arange(count, device=found.labels.device), count)
