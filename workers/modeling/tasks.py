"""The three kinds of model as one interface: records in, tensors, per-record losses and raw outputs out.

Records are encoded once (`encode`: decoded pixels or token ids, on the host), then batches are cut from the
encoding (`batch`), so that an epoch costs no decoding.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from service.errors import BadDataset

Batch = dict[str, Tensor]


class Encoding(Protocol):
    """Encoded records on the host. `lengths` are model positions per record, for grouping by length."""

    @property
    def nbytes(self) -> int: ...

    @property
    def lengths(self) -> list[int] | None: ...

    def fingerprints(self) -> NDArray[np.uint64] | None:
        """A number for each record [N], the same where the model sees the same; None where that is not cheap."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class ClassifierOutputs:
    """Logits [B, classes] (float32) and true labels [B]."""

    logits: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TokenOutputs:
    """One entry per loss-bearing token of a batch, in record order.

    `log_probs` of the true tokens (nats, float32), `mean` and `variance` of log-probabilities over the vocabulary under
    the model's own distribution (nats, float32), `correct` where the likeliest token is the true one, `rows` the
    position of each token's record in the batch, `utf8_bytes` [B] how many bytes of text the scored tokens cover and
    `zlib_bytes` [B] how many it has compressed.
    """

    log_probs: Tensor
    mean: Tensor
    variance: Tensor
    correct: Tensor
    rows: Tensor
    utf8_bytes: Tensor
    zlib_bytes: Tensor


@dataclass(frozen=True)
class Predictions:
    """Some predictions of a batch, at least one a record: logits [M, C] without gradient, true classes or tokens [M].

    `rows` int64 [M] are positions in the batch; None where there is one prediction a record, in their order.
    """

    logits: Tensor
    targets: Tensor
    rows: Tensor | None = None


class Task(Protocol):
    """What training, methods and scoring need to know about a kind of model."""

    name: str

    def encode(self, columns: dict[str, list[Any]]) -> Encoding:
        """Encode records given by role; BadDataset where a value cannot be used."""
        ...

    def join(self, parts: list[Any]) -> Encoding:
        """One encoding from consecutive parts."""
        ...

    def batch(self, encoding: Any, indices: list[int]) -> Batch:
        """Tensors of these records, on the host."""
        ...

    def losses(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Loss of each record [B] in nats; for a language model the mean over its loss-bearing tokens."""
        ...

    def watched(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Predictions]:
        """Losses as by `losses`, and predictions of each record from the same forward pass."""
        ...

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """The training loss of a batch: the mean over records, for a language model the mean over tokens."""
        ...

    def outputs(self, model: PreTrainedModel, batch: Batch) -> ClassifierOutputs | TokenOutputs:
        """What scoring is computed from."""
        ...


def classifier_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each record [B] in nats, in float32."""
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


def label_tensor(labels: list[Any], num_labels: int) -> Tensor:
    """Labels as int64 [N]; BadDataset for one that is missing, not an integer or outside 0..num_labels-1."""
    try:
        values = torch.tensor([int(label) for label in labels], dtype=torch.int64)
    except (TypeError, ValueError) as error:
        raise BadDataset("a label is missing or not an integer: give integers from 0") from error
    if len(values) and not (int(values.min()) >= 0 and int(values.max()) < num_labels):
        wrong = int(values.min()) if int(values.min()) < 0 else int(values.max())
        raise BadDataset(f"label {wrong} is outside 0..{num_labels - 1}: the model has {num_labels} labels")
    return values
