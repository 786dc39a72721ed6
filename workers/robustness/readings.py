"""Score tables as the robustness probes read them: what a membership attack and an accuracy are computed from."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from service.errors import Unevaluable
from service.verification.statistics import Array, Clusters


@dataclass(frozen=True)
class Reading:
    """One model on records [N], in the order of its table.

    `membership`: larger = more like a member: logit-scaled confidence, or minus the loss per token or byte.
    `accuracy`: 0 or 1, or the share of right next tokens.
    """

    membership: Array
    accuracy: Array
    subjects: Clusters

    def __len__(self) -> int:
        return len(self.membership)


def read_scores(table: pa.Table, per_byte: bool = False) -> Reading:
    """A reading of a table of `workers.scoring.score`; `per_byte` compares texts of models with unlike tokenizers.

    Raises Unevaluable where a score is not finite.
    """
    if "confidence" in table.column_names:
        membership, accuracy = _values(table, "confidence"), _values(table, "correct")
    else:
        units = np.maximum(_values(table, "utf8_bytes" if per_byte else "tokens"), 1.0)
        membership, accuracy = -_values(table, "nll") / units, _values(table, "token_accuracy")
    wrong = int(np.count_nonzero(~np.isfinite(membership)))
    if wrong:
        raise Unevaluable(f"{wrong} of {len(membership)} scores are not finite")
    return Reading(membership, accuracy, np.asarray(table["subject_id"].to_pylist(), dtype=str))


def _values(table: pa.Table, name: str) -> Array:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)
