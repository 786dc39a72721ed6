"""Score tables as the checks need them: aligned arrays by model and set, refused where they allow no number."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.errors import Unevaluable
from service.verification.statistics import Array, Clusters
from workers.metrics.utility import Likelihood

FORGET, RETAIN, HELD_OUT = "forget", "retain", "held_out"
CANARY, CANARY_OUT, CANARY_KEPT = "canary", "canary_out", "canary_kept"
"""Canaries that were deleted along with people, ones of the same make that no training ever saw, and ones that stay."""
SETS = (FORGET, RETAIN, HELD_OUT, CANARY, CANARY_OUT, CANARY_KEPT)
ORIGINAL, CANDIDATE, RETRAINED = "original", "candidate", "retrained-"

_COLUMNS = {
    "causal-lm": ("loss", "nll", "tokens", "utf8_bytes", "token_accuracy"),
    "classifier": ("loss", "confidence", "correct"),
}
_OF_TEXTS = ("zlib_bytes", "min_k", "min_k_plus_plus")
LOG_P, STRENGTH, SUFFIX_TOKENS = "extraction_log_p", "extraction_strength", "extraction_tokens"
VALUE_BITS, VALUE_OTHERS = "value_exposure", "value_others"
OF_SUFFIXES = (LOG_P, STRENGTH, SUFFIX_TOKENS, VALUE_BITS, VALUE_OTHERS)
"""Columns of the texts that were asked for; null for the others."""


@dataclass(frozen=True)
class SetScores:
    """One model on one set, arrays [N] sorted by record id.

    `membership`: larger = more like a member: logit-scaled confidence, or minus the loss per token or byte.
    `accuracy`: 0 or 1, or the share of right next tokens. `loss`: nats per record, or per token. `likelihood` is None
    for classifiers; its units are tokens, or bytes where tokenizers differ. `labels` are those of classifiers, `texts`
    the columns `zlib_bytes`, `min_k` and `min_k_plus_plus` of language models, and those of `OF_SUFFIXES` with nan for
    texts that were not asked for, where the table has them.
    """

    ids: Clusters
    subjects: Clusters
    membership: Array
    accuracy: Array
    loss: Array
    likelihood: Likelihood | None
    tokens: Array
    utf8_bytes: Array
    labels: Clusters | None = None
    texts: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, chosen: NDArray[np.bool_]) -> "SetScores":
        """The records of a classifier that are chosen."""
        arrays = ("ids", "subjects", "membership", "accuracy", "loss", "tokens", "utf8_bytes", "labels")
        kept: dict[str, Any] = {name: getattr(self, name)[chosen] for name in arrays if getattr(self, name) is not None}
        return replace(self, **kept)

    @property
    def probability(self) -> Array:
        """Probability of the true label, or the geometric mean probability of a token."""
        return np.asarray(np.exp(-self.loss), dtype=np.float64)


ModelScores = Mapping[str, SetScores]


def read_tables(tables: Mapping[str, pa.Table], task: str, per_byte: bool) -> dict[str, ModelScores]:
    """Model -> set -> scores. Tables have the columns of `workers.scoring.score` and `set`.

    Held-out records and canaries may be absent.
    Raises Unevaluable for a missing model or column, a score that is not finite, a record that occurs twice, models
    that were not scored on the same records of the same people, and an empty forget or retain set.
    """
    for name in (ORIGINAL, CANDIDATE):
        if name not in tables:
            raise Unevaluable(f"there is no score table of the {name} model")
    models = {name: _read_model(name, table, task, per_byte) for name, table in tables.items()}
    reference = models[ORIGINAL]
    for part in (FORGET, RETAIN):
        if part not in reference:
            raise Unevaluable(f"the {part} set is empty: there is nothing to compare")
    for name, sets in models.items():
        if sets.keys() != reference.keys() or any(not _same(sets[part], reference[part]) for part in sets):
            raise Unevaluable(f"the {name} model was not scored on the same records as the original")
    return models


def _same(left: SetScores, right: SetScores) -> bool:
    return np.array_equal(left.ids, right.ids) and np.array_equal(left.subjects, right.subjects)


def _read_model(name: str, table: pa.Table, task: str, per_byte: bool) -> ModelScores:
    kind = task if task in _COLUMNS else "classifier"
    missing = [
        column for column in ("record_id", "subject_id", "set", *_COLUMNS[kind]) if column not in table.column_names
    ]
    if missing:
        raise Unevaluable(f"the scores of the {name} model have no column {missing[0]}")
    sets: dict[str, SetScores] = {}
    for part in SETS:
        rows = table.filter(pc.equal(table["set"], part))
        if rows.num_rows:
            sets[part] = _read_set(name, part, rows, kind, per_byte)
    return sets


def _read_set(name: str, part: str, rows: pa.Table, kind: str, per_byte: bool) -> SetScores:
    ids = np.asarray(rows["record_id"].to_pylist(), dtype=str)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    if np.any(ids[1:] == ids[:-1]):
        raise Unevaluable(f"a record occurs twice in the {part} set of the {name} model")
    values = {column: _finite(name, part, column, rows[column])[order] for column in _COLUMNS[kind]}
    subjects = np.asarray(rows["subject_id"].to_pylist(), dtype=str)[order]
    if kind == "classifier":
        ones = np.ones(len(ids))
        labels = np.asarray(rows["label"].to_pylist())[order] if "label" in rows.column_names else None
        return SetScores(
            ids, subjects, values["confidence"], values["correct"], values["loss"], None, ones, ones, labels
        )
    # A text without a loss-bearing token says nothing about the model: it scores 0 like any other such text.
    tokens, bytes_ = np.maximum(values["tokens"], 1.0), np.maximum(values["utf8_bytes"], 1.0)
    units = bytes_ if per_byte else tokens
    likelihood = Likelihood(values["nll"], units)
    texts = {
        column: _finite(name, part, column, rows[column])[order] for column in _OF_TEXTS if column in rows.column_names
    }
    texts |= {column: _numbers(rows[column])[order] for column in OF_SUFFIXES if column in rows.column_names}
    return SetScores(
        ids,
        subjects,
        -values["nll"] / units,
        values["token_accuracy"],
        values["loss"],
        likelihood,
        tokens,
        bytes_,
        texts=texts,
    )


def _finite(name: str, part: str, column: str, values: Any) -> Array:
    found = _numbers(values)
    wrong = int(np.count_nonzero(~np.isfinite(found)))
    if wrong:
        raise Unevaluable(
            f"{wrong} of {len(found)} {column} scores of the {name} model on the {part} set are not finite"
        )
    return found


def _numbers(values: Any) -> Array:
    """A column as float64; nan for null."""
    return np.asarray(values.combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def with_kinds(tables: Mapping[str, pa.Table], kinds: Mapping[str, str]) -> dict[str, pa.Table]:
    """The score tables with a column `kind` of canaries, null for people's records; as they are without canaries."""
    if not kinds:
        return dict(tables)
    named = {name: [kinds.get(record) for record in table["record_id"].to_pylist()] for name, table in tables.items()}
    return {name: table.append_column("kind", pa.array(named[name], pa.string())) for name, table in tables.items()}
