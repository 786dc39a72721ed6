"""Made-up score tables: Gaussian scores with a known leak, records in subjects, models that share the records."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class World:
    """Sizes, and how much records of one subject resemble each other (`rho`). Scores have unit variance and mean 2."""

    forget: int = 120
    retain: int = 200
    held_out: int = 600
    per_subject: int = 1
    rho: float = 0.0
    level: float = 2.0
    seed: int = 0
    shared: float = 0.8
    sizes: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        sizes = {"forget": self.forget, "retain": self.retain, "held_out": self.held_out}
        object.__setattr__(self, "sizes", {part: size for part, size in sizes.items() if size})

    def tables(self, **leaks: float) -> dict[str, pa.Table]:
        """One table for each model: name=leak, the shift of forgotten records in standard deviations.

        Retained records are shifted by 2 everywhere. Names like retrained_1 become retrained-1.
        """
        draw = np.random.default_rng(self.seed)
        common = {part: self._draw(draw, size) for part, size in self.sizes.items()}
        return {name.replace("_", "-"): self._table(draw, common, leak) for name, leak in leaks.items()}

    def _subjects(self, size: int) -> np.ndarray:
        return np.arange(size) // self.per_subject

    def _draw(self, draw: np.random.Generator, size: int) -> np.ndarray:
        people = draw.normal(size=size // self.per_subject + 1)[self._subjects(size)]
        return np.asarray(np.sqrt(self.rho) * people + np.sqrt(1 - self.rho) * draw.normal(size=size))

    def _table(self, draw: np.random.Generator, common: Mapping[str, np.ndarray], leak: float) -> pa.Table:
        parts = []
        for part, size in self.sizes.items():
            own = self._draw(draw, size)
            scores = self.level + np.sqrt(self.shared) * common[part] + np.sqrt(1 - self.shared) * own
            scores += {"forget": leak, "retain": 2.0, "held_out": 0.0}[part]
            parts.append(classifier_table(part, scores, self._subjects(size)))
        return pa.concat_tables(parts)


def classifier_table(part: str, confidence: np.ndarray, subjects: np.ndarray) -> pa.Table:
    """The columns of workers.scoring that the checks read, from logit-scaled confidences [N]."""
    return pa.table(
        {
            "record_id": [f"{part}-{at:05d}" for at in range(len(confidence))],
            "subject_id": [f"{part}-person-{subject:05d}" for subject in subjects],
            "set": [part] * len(confidence),
            "loss": np.log1p(np.exp(-confidence)),
            "confidence": np.asarray(confidence, dtype=np.float64),
            "correct": np.asarray(confidence) > 0,
        }
    )


def language_table(part: str, per_token: np.ndarray, subjects: np.ndarray, tokens: int = 20) -> pa.Table:
    """The same for a language model, from mean losses per token [N]; four bytes a token."""
    size = len(per_token)
    return pa.table(
        {
            "record_id": [f"{part}-{at:05d}" for at in range(size)],
            "subject_id": [f"{part}-person-{subject:05d}" for subject in subjects],
            "set": [part] * size,
            "loss": np.asarray(per_token, dtype=np.float64),
            "nll": np.asarray(per_token, dtype=np.float64) * tokens,
            "tokens": np.full(size, tokens),
            "utf8_bytes": np.full(size, 4 * tokens),
            "token_accuracy": np.clip(1 - np.asarray(per_token) / 5, 0, 1),
        }
    )


def replace_column(table: pa.Table, name: str, values: object) -> pa.Table:
    """A table with one column's values exchanged."""
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def without(table: pa.Table, part: str) -> pa.Table:
    """A table without one set."""
    return table.filter(pa.array([value != part for value in table["set"].to_pylist()]))
