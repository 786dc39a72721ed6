"""Text tasks: sequence classification and causal language modelling.

For a language model the loss is taken where it is wanted (all but the first token of a text, the completion of a
prompt) and the output head is computed at those positions only: logits at every position are most of the time and
memory of a small model with a large vocabulary.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from service.errors import BadDataset
from workers.modeling.tasks import (
    Batch,
    ClassifierOutputs,
    Predictions,
    TokenOutputs,
    classifier_losses,
    label_tensor,
)

IGNORED = -100

_BLOCK = {"cpu": 1 << 17}
_LARGE_BLOCK = 1 << 26
"""Logits that statistics over the vocabulary are taken of at a time: on a CPU as many as stay in its cache, which pays
for the statistics; elsewhere more, since each block launches every kernel. Either takes little memory."""

_LOWEST = -1e4
"""Stands for the log-probability of a token that is ruled out: 0 times it is 0."""


@dataclass(frozen=True)
class TextEncoding:
    """Token ids of N records laid end to end.

    `tokens` int32 [sum of lengths], `starts` int64 [N + 1], `first` int32 [N] the first loss-bearing position of each
    record, `utf8_bytes` int32 [N] the bytes of text its loss-bearing tokens cover and `zlib_bytes` int32 [N] those of
    this text compressed, `labels` int64 [N] or None.
    """

    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    first: NDArray[np.int32]
    utf8_bytes: NDArray[np.int32]
    zlib_bytes: NDArray[np.int32]
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def nbytes(self) -> int:
        parts = (self.tokens, self.starts, self.first, self.utf8_bytes, self.zlib_bytes)
        return sum(part.nbytes for part in parts)

    @property
    def lengths(self) -> list[int]:
        return [int(length) for length in np.diff(self.starts)]

    def fingerprints(self) -> None:
        return None


def laid_out(
    ids: list[list[int]], first: list[int], covered: list[bytes] | None = None, labels: Tensor | None = None
) -> TextEncoding:
    """Token ids of each record, its first loss-bearing position and the UTF-8 text that its loss covers, as arrays.

    Where `covered` is None the encoding has no text to count the bytes of, and says 0.
    """
    starts = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(tokens) for tokens in ids], out=starts[1:])
    flat = np.fromiter((token for tokens in ids for token in tokens), dtype=np.int32, count=int(starts[-1]))
    texts = covered if covered is not None else [b""] * len(ids)
    sizes = np.array([len(text) for text in texts], dtype=np.int32)
    squeezed = np.array([len(zlib.compress(text)) if text else 0 for text in texts], dtype=np.int32)
    return TextEncoding(flat, starts, np.asarray(first, dtype=np.int32), sizes, squeezed, labels)


def _joined(parts: list[TextEncoding]) -> TextEncoding:
    offsets = np.cumsum([0, *(len(part.tokens) for part in parts)])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
    labels = [part.labels for part in parts if part.labels is not None]
    return TextEncoding(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([*starts, offsets[-1:]]).astype(np.int64),
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.utf8_bytes for part in parts]),
        np.concatenate([part.zlib_bytes for part in parts]),
        torch.cat(labels) if labels else None,
    )


def _padded(encoding: TextEncoding, indices: list[int], pad: int) -> tuple[Tensor, Tensor]:
    """`input_ids` int64 [B, T] padded on the right, and the boolean mask [B, T] of real tokens."""
    rows = np.asarray(indices, dtype=np.int64)
    lengths = encoding.starts[rows + 1] - encoding.starts[rows]
    positions = np.arange(int(lengths.max()))
    mask = positions[None, :] < lengths[:, None]
    ids = np.full(mask.shape, pad, dtype=np.int64)
    ids[mask] = encoding.tokens[(encoding.starts[rows][:, None] + positions[None, :])[mask]]
    return torch.from_numpy(ids), torch.from_numpy(mask)


WATCHED = 64
"""Predictions of a training batch from which learning events are taken."""


class TextClassification:
    """Cross-entropy on labels of texts cut to `max_length` tokens."""

    name = "text-classification"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int, num_labels: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.num_labels = num_labels

    def encode(self, columns: dict[str, list[Any]]) -> TextEncoding:
        """Tokenise; an empty text becomes the end token."""
        coded = self.tokenizer(columns["text"], truncation=True, max_length=self.max_length)
        ids = [tokens or [int(self.tokenizer.eos_token_id)] for tokens in coded["input_ids"]]
        return laid_out(ids, [0] * len(ids), labels=label_tensor(columns["label"], self.num_labels))

    def join(self, parts: list[TextEncoding]) -> TextEncoding:
        """One encoding from consecutive parts."""
        return _joined(parts)

    def batch(self, encoding: TextEncoding, indices: list[int]) -> Batch:
        """`input_ids`, `attention_mask` [B, T] and `labels` [B]."""
        assert encoding.labels is not None  # noqa: S101  (encode always sets them)
        ids, mask = _padded(encoding, indices, int(self.tokenizer.pad_token_id))
        return {"input_ids": ids, "attention_mask": mask.long(), "labels": encoding.labels[torch.tensor(indices)]}

    def losses(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Cross-entropy of each record [B], nats."""
        return classifier_losses(self._logits(model, batch), batch["labels"])

    def watched(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Predictions]:
        """Losses [B] and the prediction of each record."""
        logits = self._logits(model, batch)
        return classifier_losses(logits, batch["labels"]), Predictions(logits.detach(), batch["labels"])

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """The mean over records."""
        del batch
        return losses.mean()

    def outputs(self, model: PreTrainedModel, batch: Batch) -> ClassifierOutputs:
        """Logits and labels."""
        return ClassifierOutputs(self._logits(model, batch).float(), batch["labels"])

    def _logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        answer = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        logits: Tensor = answer.logits
        return logits


class CausalLanguageModelling:
    """Next-token cross-entropy on texts, or on the completions of prompts, closed by the end token."""

    name = "causal-lm"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._heads: dict[int, Callable[[Batch], tuple[Tensor, Tensor]]] = {}

    def encode(self, columns: dict[str, list[Any]]) -> TextEncoding:
        """Tokenise; BadDataset where the cut at `max_length` leaves nothing to predict.

        Prompt and completion are tokenised as one text. A token bears loss when it reaches into the completion, so
        the space that joins the two, which byte-level tokenizers glue to the first word, is learnt with it.
        """
        prompts, texts = _prompts_and_texts(columns)
        coded = self.tokenizer(texts, return_offsets_mapping=True, truncation=True, max_length=self.max_length)
        end = int(self.tokenizer.eos_token_id)
        ids: list[list[int]] = []
        first: list[int] = []
        covered: list[bytes] = []
        for text, prompt, tokens, spans in zip(
            texts, prompts, coded["input_ids"], coded["offset_mapping"], strict=True
        ):
            closed = tokens if tokens and tokens[-1] == end else [*tokens, end][: self.max_length]
            start = max(1, next((at for at, span in enumerate(spans) if span[1] > len(prompt)), len(tokens)))
            ids.append(closed)
            first.append(start)
            covered.append(_covered(text, spans, start))
        empty = sum(begin >= len(tokens) for begin, tokens in zip(first, ids, strict=True))
        if empty:
            raise BadDataset(
                f"{empty} records have nothing to predict within max_length {self.max_length}: raise max_length, "
                "shorten their prompts or leave them out"
            )
        return laid_out(ids, first, covered)

    def join(self, parts: list[TextEncoding]) -> TextEncoding:
        """One encoding from consecutive parts."""
        return _joined(parts)

    def batch(self, encoding: TextEncoding, indices: list[int]) -> Batch:
        """`input_ids` [B, T], `targets` [B, T] (-100 where no loss is taken), `utf8_bytes` and `zlib_bytes` [B]."""
        ids, mask = _padded(encoding, indices, int(self.tokenizer.pad_token_id))
        first = torch.from_numpy(encoding.first[indices].astype(np.int64))
        bearing = mask & (torch.arange(ids.shape[1])[None, :] >= first[:, None])
        targets = ids.masked_fill(~bearing, IGNORED)
        sizes, squeezed = (
            torch.from_numpy(part[indices].astype(np.int64)) for part in (encoding.utf8_bytes, encoding.zlib_bytes)
        )
        return {"input_ids": ids, "targets": targets, "utf8_bytes": sizes, "zlib_bytes": squeezed}

    def losses(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Mean negative log-likelihood per loss-bearing token of each record [B], nats."""
        logits, targets, rows = self.predictions(model, batch)
        return self._means(nn.functional.cross_entropy(logits, targets, reduction="none")[None], rows, batch)[0]

    def _means(self, values: Tensor, rows: Tensor, batch: Batch) -> Tensor:
        """Means over each record's tokens [K, B] of values per token [K, M]."""
        sums = torch.zeros(len(values), len(batch["input_ids"]), device=values.device).index_add(1, rows, values)
        return sums / self._counts(batch)

    def watched(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Predictions]:
        """Losses [B] and predictions of every k-th loss-bearing token of a record, from the first.

        k is such that some `WATCHED` predictions of a batch are looked at: over all of them the overhead shows.
        """
        logits, targets, rows = self.predictions(model, batch)
        losses = self._means(nn.functional.cross_entropy(logits, targets, reduction="none")[None], rows, batch)[0]
        counts = torch.bincount(rows, minlength=len(losses))
        place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        chosen = (place % max(1, len(rows) // WATCHED) == 0).nonzero()[:, 0]
        return losses, Predictions(logits.detach()[chosen], targets[chosen], rows[chosen])

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """The mean over loss-bearing tokens of the batch."""
        counts = self._counts(batch)
        return (losses * counts).sum() / counts.sum()

    def outputs(self, model: PreTrainedModel, batch: Batch) -> TokenOutputs:
        """Log-probabilities of the true tokens, whether they were the likeliest, and what was to be expected there."""
        logits, targets, rows = self.predictions(model, batch)
        size = max(1, _BLOCK.get(logits.device.type, _LARGE_BLOCK) // logits.shape[1])
        blocks = zip(logits.split(size), targets.split(size), strict=True)
        log_probs, mean, variance, correct = map(torch.cat, zip(*(_told(*block) for block in blocks), strict=True))
        return TokenOutputs(log_probs, mean, variance, correct, rows, batch["utf8_bytes"], batch["zlib_bytes"])

    @staticmethod
    def _counts(batch: Batch) -> Tensor:
        return (batch["targets"][:, 1:] != IGNORED).sum(dim=1).to(torch.float32)

    def predictions(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits float32 [M, V], true tokens [M] and record positions [M] of the M loss-bearing tokens."""
        if id(model) not in self._heads:
            self._heads = {id(model): _head(model, batch)}
        logits, bearing = self._heads[id(model)](batch)
        return logits.float(), batch["targets"][:, 1:][bearing], bearing.nonzero()[:, 0]


def _told(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(log-probability of the target, mean and variance of all under the distribution itself, was it the likeliest)
    at each of M positions, from logits [M, V]."""
    log_p = torch.log_softmax(logits, dim=1)
    own = log_p.gather(1, targets.unsqueeze(1))[:, 0]
    correct = log_p.argmax(dim=1) == targets
    p = log_p.exp()
    log_p = log_p.clamp_(min=_LOWEST)
    mean = torch.linalg.vecdot(p, log_p)
    # Around the mean: the difference of two large numbers would lose a nearly uniform distribution's small variance.
    variance = torch.linalg.vecdot(p, log_p.sub_(mean.unsqueeze(1)).square_())
    return own, mean, variance, correct


def _prompts_and_texts(columns: dict[str, list[Any]]) -> tuple[list[str], list[str]]:
    if "prompt" in columns:
        texts = [f"{p} {c}" for p, c in zip(columns["prompt"], columns["completion"], strict=True)]
        return columns["prompt"], texts
    return [""] * len(columns["text"]), columns["text"]


def _covered(text: str, spans: list[tuple[int, int]], start: int) -> bytes:
    """The UTF-8 text from the end of the last token without loss to the end of the last token kept."""
    if not spans:
        return b""
    begin = spans[start - 1][1] if start - 1 < len(spans) else len(text)
    return text[begin : max(begin, spans[-1][1])].encode()


def _bearing(batch: Batch) -> Tensor:
    return batch["targets"][:, 1:] != IGNORED


def _head(model: PreTrainedModel, batch: Batch) -> Callable[[Batch], tuple[Tensor, Tensor]]:
    """How this model's logits are computed: at selected positions where that gives the same numbers, else everywhere.

    Some architectures scale or cap their logits after the head; the two ways are compared once on a short batch.
    """

    def everywhere(batch: Batch) -> tuple[Tensor, Tensor]:
        bearing = _bearing(batch)
        return model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1][bearing], bearing

    def selected(batch: Batch) -> tuple[Tensor, Tensor]:
        bearing = _bearing(batch)
        hidden = model.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
        return model.get_output_embeddings()(hidden[:, :-1][bearing]), bearing

    if model.base_model is model or model.get_output_embeddings() is None or _shapes_logits(model):
        return everywhere
    short = {key: value[:2, :16] for key, value in batch.items() if value.ndim == 2}
    short["targets"] = short["input_ids"]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected, got = everywhere(short)[0].float(), selected(short)[0].float()
    except (AttributeError, TypeError, RuntimeError):
        return everywhere
    finally:
        model.train(training)
    same = expected.shape == got.shape and torch.allclose(expected, got, rtol=1e-2, atol=1e-3)
    return selected if same else everywhere


def _shapes_logits(model: PreTrainedModel) -> bool:
    """Whether its configuration caps or scales logits, which small weights may not show: the way must not change as
    the weights do."""
    settings = model.config.to_dict()
    return any("logit" in name and value not in (None, False, 1, 1.0) for name, value in settings.items())
