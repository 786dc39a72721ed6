"""Per-record scores as the plots need them: one membership score per record, for each model and set.

The tables are the Arrow files that workers/scoring leaves. They are personal data: read here once, at attest, and
destroyed by the caller afterwards. Only figures stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REFERENCES = "references"
"""No model but the mean score of reference models that never saw the record, for each record; null where none was."""

MODELS = ("original", "candidate", "retrained", REFERENCES)
SETS = ("forget", "held_out")
PLANTED = ("canary", "canary_out")
"""Canaries that were deleted along with people, and canaries that no training ever saw: absent in most tables."""

ScoreFiles = Path | Mapping[str, Path | Mapping[str, Path]]
"""A folder of <model>.arrow, or model -> one Arrow file with a column `set`, or model -> one file for each set."""


@dataclass(frozen=True)
class ModelScores:
    """Finite scores [n] of forgotten and [m] of held-out records under one model.

    `planted`: those [c] of canaries deleted along and [r] of canaries never trained on; None where there are none.
    `kinds` of the same canaries, None where the tables do not say them. `subjects`: numbers [n], [m] that are equal
    for records of one person and say nothing else, None where the tables do not say whose a record is.
    """

    model: str
    forget: "NDArray[np.float64]"
    held_out: "NDArray[np.float64]"
    planted: "tuple[NDArray[np.float64], NDArray[np.float64]] | None" = None
    kinds: "tuple[NDArray[np.str_], NDArray[np.str_]] | None" = None
    subjects: "tuple[NDArray[np.int64], NDArray[np.int64]] | None" = None


@dataclass(frozen=True)
class Scores:
    """Scores of all models of one job; `higher_is_member` tells the direction of the attack."""

    label: str
    higher_is_member: bool
    models: tuple[ModelScores, ...]
    paired: "NDArray[np.float64] | None" = None
    """[models, n] scores of the same forgotten records under every model, in ascending order of the first model's:
    the order says nothing about who they are. None where not all are finite."""

    @property
    def n(self) -> int:
        """Forgotten records."""
        return min((len(model.forget) for model in self.models), default=0)

    @property
    def m(self) -> int:
        """Held-out records."""
        return min((len(model.held_out) for model in self.models), default=0)


@dataclass(frozen=True)
class Scale:
    """Which column is the score, per which other column."""

    label: str
    higher_is_member: bool
    column: str
    per: str | None = None

    @property
    def columns(self) -> set[str]:
        """What a table must have."""
        return {self.column, *([self.per] if self.per else [])}

    def values(self, table: Any) -> "NDArray[np.float64]":
        """Finite scores of a table."""
        import numpy as np

        values = self._all(table)
        return values[np.isfinite(values)]

    def subjects(self, table: Any) -> "NDArray[np.int64] | None":
        """A number for the person of each finite score; None where the table does not say whose they are."""
        import numpy as np

        if "subject_id" not in table.column_names:
            return None
        numbers = np.unique(table["subject_id"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)[1]
        return numbers[np.isfinite(self._all(table))].astype(np.int64)

    def _all(self, table: Any) -> "NDArray[np.float64]":
        import numpy as np

        values: NDArray[np.float64] = table[self.column].to_numpy().astype(np.float64)
        return values if self.per is None else values / np.maximum(table[self.per].to_numpy(), 1)


def read_scores(files: ScoreFiles, unit: str = "token") -> Scores | None:
    """The scores of the models in `files`, those that the gate's attack uses; None where a table or a set is missing.

    `unit`: what the losses of language models are compared per, "token" or "byte" (tokenizers differ).
    """
    if isinstance(files, Path):
        files = {path.stem: path for path in sorted(files.glob("*.arrow"))}
    tables = {name: _sets(files[name]) for name in files if name.startswith(MODELS)}
    if not {"original", "candidate"} <= tables.keys() or not all(tables[name].keys() >= set(SETS) for name in tables):
        return None
    theirs = tables.pop(REFERENCES, None)
    columns = set.intersection(*(set(table.column_names) for sets in tables.values() for table in sets.values()))
    if "confidence" in columns:
        kind = Scale("logit-scaled confidence", True, "confidence")
    elif unit == "byte" and {"nll", "utf8_bytes"} <= columns:
        kind = Scale("mean loss (nats per byte)", False, "nll", "utf8_bytes")
    else:
        kind = Scale("mean loss (nats per token)" if "tokens" in columns else "loss (nats)", False, "loss")
    order = sorted(tables, key=lambda name: (MODELS.index(next(filter(name.startswith, MODELS))), name))
    if theirs is not None and all(kind.columns <= set(table.column_names) for table in theirs.values()):
        tables[REFERENCES] = theirs
        order.append(REFERENCES)
    models = tuple(_model(name, tables[name], kind) for name in order)
    if models[-1].model == REFERENCES and len(models[-1].forget) < len(models[0].forget):
        models, order = models[:-1], order[:-1]  # a row of some of them would pass for all of them
    paired = _paired([tables[name]["forget"] for name in order], kind)
    scores = Scores(kind.label, kind.higher_is_member, models, paired)
    return scores if scores.n and scores.m else None


def _model(name: str, sets: Mapping[str, Any], kind: Scale) -> ModelScores:
    forget, held_out = (kind.values(sets[part]) for part in SETS)
    whose = [kind.subjects(sets[part]) for part in SETS]
    subjects = (whose[0], whose[1]) if whose[0] is not None and whose[1] is not None else None
    planted = [kind.values(sets[part]) for part in PLANTED if part in sets]
    both = len(planted) == len(PLANTED) and all(map(len, planted))
    if not both:
        return ModelScores(name, forget, held_out, subjects=subjects)
    return ModelScores(name, forget, held_out, (planted[0], planted[1]), _kinds(sets, planted), subjects)


def _kinds(
    sets: Mapping[str, Any], planted: "Sequence[NDArray[np.float64]]"
) -> "tuple[NDArray[np.str_], NDArray[np.str_]] | None":
    """Kinds of the planted records in the order of their scores; None where some have none, or no finite score."""
    import numpy as np

    named = [sets[part]["kind"].to_pylist() if "kind" in sets[part].column_names else [] for part in PLANTED]
    if any(len(names) != len(scores) or None in names for names, scores in zip(named, planted, strict=True)):
        return None
    deleted, outside = (np.array(names, dtype=str) for names in named)
    return deleted, outside


def _paired(tables: Sequence[Any], kind: Scale) -> "NDArray[np.float64] | None":
    import numpy as np

    ordered = [table.sort_by("record_id") for table in tables]
    values = [kind.values(table) for table in ordered]
    same = all(table["record_id"].equals(ordered[0]["record_id"]) for table in ordered)
    if not same or any(len(found) != len(table) for found, table in zip(values, ordered, strict=True)):
        return None
    return np.stack(values)[:, np.argsort(values[0], kind="stable")]


def _sets(source: Path | Mapping[str, Path]) -> dict[str, Any]:
    import pyarrow.compute as pc

    if not isinstance(source, Path):
        return {part: _read(source[part]) for part in (*SETS, *PLANTED) if part in source}
    table = _read(source)
    if "set" not in table.column_names:
        return {}
    return {part: table.filter(pc.equal(table["set"], part)) for part in (*SETS, *PLANTED)}


def _read(path: Path) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def auc(scores: ModelScores, higher_is_member: bool) -> float:
    """Probability that a forgotten record scores more like a member than a held-out one; ties count one half."""
    forget, held_out = (scores.forget, scores.held_out) if higher_is_member else (-scores.forget, -scores.held_out)
    return _mann_whitney(forget, held_out)


def _mann_whitney(members: "NDArray[np.float64]", others: "NDArray[np.float64]") -> float:
    import numpy as np

    others = np.sort(others)
    below = np.searchsorted(others, members, side="left")
    at_most = np.searchsorted(others, members, side="right")
    return float((below + at_most).sum() / (2 * len(members) * len(others)))


def roc(scores: ModelScores, higher_is_member: bool) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """(false positive rate, true positive rate) at every threshold, from the strictest to the laxest."""
    import numpy as np

    sign = 1.0 if higher_is_member else -1.0
    forget, held_out = np.sort(sign * scores.forget), np.sort(sign * scores.held_out)
    thresholds = np.unique(np.concatenate([forget, held_out]))[::-1]
    true = 1.0 - np.searchsorted(forget, thresholds, side="left") / len(forget)
    false = 1.0 - np.searchsorted(held_out, thresholds, side="left") / len(held_out)
    return false, true
