"""One pass of a model over records, written down as a table; every metric is a function of such tables."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from workers.modeling.batching import Encoded
from workers.modeling.loading import LoadedModel
from workers.modeling.problem import Context, Meter
from workers.modeling.records import Records
from workers.modeling.tasks import ClassifierOutputs, TokenOutputs

BATCH_SIZE = 128
LOWEST_SHARE = 0.2
"""Min-K% averages this share of a record's tokens, the least likely ones (Shi et al. 2023, K = 20)."""
SMALLEST_VARIANCE = 1e-6
"""Floor of the variance over the vocabulary: a model certain of its next token has none."""


@dataclass(frozen=True)
class Scored:
    """A score table and the number of forward passes (batches) it took."""

    table: pa.Table
    forward_passes: int


@torch.no_grad()
def score(loaded: LoadedModel, records: Records, context: Context, batch_size: int = BATCH_SIZE) -> Scored:
    """Score every record once, in the order of `records`.

    Columns record_id, subject_id, loss (nats; per token for language models); classifiers add confidence (logit-scaled,
    z_y - logsumexp of the others), entropy, modified_entropy, correct, predicted, label; language models add
    nll (nats, summed), tokens, utf8_bytes and zlib_bytes of the text that the loss covers, min_k and min_k_plus_plus
    (larger = more like a member), token_accuracy.
    """
    loaded.model.eval()
    encoded = Encoded(loaded.task, records)
    batches = encoded.in_order(batch_size)
    meter = Meter(context, len(batches), "scoring")
    columns: dict[str, np.ndarray] = {}
    for done, rows in enumerate(batches, 1):
        outputs = loaded.task.outputs(loaded.model, encoded.batch(rows, context.device))
        values = _classifier(outputs) if isinstance(outputs, ClassifierOutputs) else _tokens(outputs)
        for name, value in values.items():
            column = columns.setdefault(name, np.zeros(len(records), dtype=value.dtype))
            column[rows] = value
        meter.step(done)
    ids = {"record_id": pa.array(records.ids.tolist()), "subject_id": pa.array(records.subjects.tolist())}
    table = pa.table(ids | {name: pa.array(column) for name, column in columns.items()})
    return Scored(table, len(batches))


def _classifier(outputs: ClassifierOutputs) -> dict[str, np.ndarray]:
    logits, labels = outputs.logits.double(), outputs.labels
    log_p = torch.log_softmax(logits, dim=1)
    true = labels.unsqueeze(1)
    p = log_p.exp()
    others = logits.scatter(1, true, -torch.inf).logsumexp(dim=1)
    own = p.gather(1, true).squeeze(1)
    # Song and Mittal 2021, equation 7: -(1 - p_y) log p_y - sum over the others of p_i log(1 - p_i).
    log_not = torch.log1p(-p.clamp(max=1 - 1e-12))
    rest = (p * log_not).scatter(1, true, 0.0).sum(dim=1)
    loss = -log_p.gather(1, true).squeeze(1)
    predicted = logits.argmax(dim=1)
    values = {
        "loss": loss,
        "confidence": logits.gather(1, true).squeeze(1) - others,
        "entropy": -(p * log_p).sum(dim=1),
        "modified_entropy": (1 - own) * loss - rest,
        "correct": predicted == labels,
        "predicted": predicted,
        "label": labels,
    }
    return {name: value.cpu().numpy() for name, value in values.items()}


def _tokens(outputs: TokenOutputs) -> dict[str, np.ndarray]:
    size = len(outputs.utf8_bytes)
    rows = outputs.rows.cpu().numpy()
    log_p, mean, variance = (
        part.double().cpu().numpy() for part in (outputs.log_probs, outputs.mean, outputs.variance)
    )
    tokens = np.bincount(rows, minlength=size)
    nll = -np.bincount(rows, weights=log_p, minlength=size)
    correct = np.bincount(rows, weights=outputs.correct.cpu().numpy(), minlength=size)
    counted = np.maximum(tokens, 1)
    # Zhang et al. (2404.02936), equation 3: how likely a token is among those that could have stood there.
    standing = (log_p - mean) / np.sqrt(np.maximum(variance, SMALLEST_VARIANCE))
    return {
        "loss": nll / counted,
        "nll": nll,
        "tokens": tokens,
        "utf8_bytes": outputs.utf8_bytes.cpu().numpy(),
        "zlib_bytes": outputs.zlib_bytes.cpu().numpy(),
        "min_k": _lowest_mean(log_p, rows, tokens),
        "min_k_plus_plus": _lowest_mean(standing, rows, tokens),
        "token_accuracy": correct / counted,
    }


def _lowest_mean(values: np.ndarray, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The mean of the lowest values [M] of each record, at least one of them; 0 for a record without any."""
    order = np.lexsort((values, rows))
    owner = rows[order]
    place = np.arange(len(rows)) - (np.cumsum(tokens) - tokens)[owner]
    wanted = np.maximum(1, np.rint(LOWEST_SHARE * tokens))
    lowest = place < wanted[owner]
    sums = np.bincount(owner[lowest], weights=values[order][lowest], minlength=len(tokens))
    return np.where(tokens > 0, sums / wanted, 0.0)
