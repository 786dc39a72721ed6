"""The membership attack calibrated by reference models: the gate's side of a pool, and the checks it makes possible.

References say how hard each record is for a model that never saw it, so that what is left can be compared between
records (workers/metrics/reference_auc.py). Only the gate's side is read here: what methods may look at judges nobody.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.errors import Unevaluable
from service.verification.policy import VerificationPolicy, margin_for
from service.verification.schema import Check
from service.verification.statistics import Array, AucDesign, NotMeasurable
from service.verification.verdict import NOT_RUN, REFERENCE, REFERENCE_CONTROL
from workers.metrics.reference_auc import Judged, ReferenceAuc, reference_auc, reference_design
from workers.modeling.directories import sha256_file
from workers.planning.checks import NO_HELD_OUT, auc_check
from workers.planning.comparisons import Line
from workers.planning.score_tables import FORGET, HELD_OUT, ModelScores, SetScores
from workers.references.layout import HELD_OUT as POOL_HELD_OUT
from workers.references.layout import TRAIN
from workers.references.pool import open_pool
from workers.references.tables import LANGUAGE, SideTable, load_side

NO_REFERENCES = NotMeasurable(f"{NOT_RUN}no references")
STATISTIC = "AUC among records that reference models find equally hard"

_SEED = 0  # of the models without a leak that say what the attack can show
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt")


def tokenizer_of(directory: Path) -> tuple[str, ...]:
    """Digests of the files that decide how a text is cut into tokens; all empty for a model of images."""
    return tuple(sha256_file(directory / name) if (directory / name).is_file() else "" for name in _TOKENIZER_FILES)


@dataclass(frozen=True)
class Calibration:
    """The gate's table in the unit in which scores are compared with it: per record or token, or per UTF-8 byte."""

    side: SideTable
    per_byte: bool


@dataclass(frozen=True)
class References:
    """The gate's side of a pool. `by_byte` is None for classifiers, `tokenizer` is that of its members."""

    side: SideTable
    by_byte: SideTable | None
    tokenizer: tuple[str, ...]

    def calibration(self, tokenizers: Collection[tuple[str, ...]]) -> Calibration:
        """For models with these tokenizers: per byte where one of them is not the members'."""
        if self.by_byte is None or set(tokenizers) == {self.tokenizer}:
            return Calibration(self.side, per_byte=False)
        return Calibration(self.by_byte, per_byte=True)


def open_references(directory: Path, task: str, data_digest: str, holdout_digest: str | None) -> References:
    """Read a pool for a gate. Raises BadParameters where it is not complete or was made for something else.

    `holdout_digest` None leaves the held-out set unchecked.
    """
    pool = open_pool(directory, task, data_digest, holdout_digest)
    by_byte = load_side(pool, "gate", per_byte=True) if task == LANGUAGE else None
    return References(load_side(pool, "gate"), by_byte, tokenizer_of(directory / pool.facts.members[0].path))


def reference_checks(
    line: Line, calibration: Calibration | NotMeasurable, policy: VerificationPolicy, alpha: float
) -> tuple[list[Check], dict[str, Any]]:
    """(`reference_auc` of the candidate and `reference_control` of the original, metrics by name).

    Without references, metrics are left out and the checks say why.
    """
    n, m = len(line.original[FORGET]), len(line.original[HELD_OUT]) if line.has_held_out else None
    if isinstance(calibration, NotMeasurable):
        return [_check(name, calibration, policy, alpha, n, m) for name in (REFERENCE, REFERENCE_CONTROL)], {}
    sets = judged_sets(line.original, calibration)
    candidate, original = (_measured(sets, model, calibration) for model in (line.candidate, line.original))
    design = None if isinstance(sets, NotMeasurable) else reference_design(*sets, np.random.default_rng(_SEED))
    pairs = ((REFERENCE, candidate), (REFERENCE_CONTROL, original))
    checks = [_check(name, found, policy, alpha, n, m, design) for name, found in pairs]
    metrics: dict[str, Any] = {REFERENCE: _value(candidate), f"{REFERENCE}_do_nothing": _value(original)}
    if line.retrained:
        metrics[f"{REFERENCE}_retrained"] = [_value(_measured(sets, model, calibration)) for model in line.retrained]
    metrics[f"{REFERENCE}_outside"] = candidate.outside if isinstance(candidate, ReferenceAuc) else None
    return checks, metrics


def judged_sets(model: ModelScores, calibration: Calibration) -> tuple[Judged, Judged] | NotMeasurable:
    """Forgotten and held-out records as one model scores them, beside what their references say."""
    if HELD_OUT not in model:
        return NotMeasurable(NO_HELD_OUT)
    try:
        forget, held_out = (
            calibration.side.judged(part, scores.ids, _scores(scores, calibration), scores.subjects, scores.labels)
            for part, scores in ((TRAIN, model[FORGET]), (POOL_HELD_OUT, model[HELD_OUT]))
        )
    except Unevaluable as error:
        return NotMeasurable(f"{NOT_RUN}{error.detail}")
    return forget, held_out


def reference_table(scores: pa.Table, calibration: Calibration, task: str) -> pa.Table | None:
    """What the references say of forgotten and held-out records on average, in the columns of a score table with `set`.

    None where some of the records are not in the pool.
    """
    parts = []
    for part, known in ((FORGET, TRAIN), (HELD_OUT, POOL_HELD_OUT)):
        rows = scores.filter(pc.equal(scores["set"], part)).select(["record_id", "subject_id", "set"])
        try:
            places = calibration.side.rows(known, np.array(rows["record_id"].to_pylist(), dtype=str))
        except Unevaluable:
            return None
        mean = calibration.side.column("out_mean")[places]
        values = {"loss": -mean} if task == LANGUAGE else {"confidence": mean}
        if calibration.per_byte:
            values = {"nll": -mean, "utf8_bytes": np.ones(len(mean))}
        for name, value in values.items():
            rows = rows.append_column(name, pa.array(value))
        parts.append(rows)
    return pa.concat_tables(parts)


def rejudged(sets: tuple[Judged, Judged], model: ModelScores, calibration: Calibration) -> tuple[Judged, Judged]:
    """The same records as another model scores them: what references say of them need not be looked up again."""
    forget, held_out = sets
    return (
        replace(forget, scores=_scores(model[FORGET], calibration)),
        replace(held_out, scores=_scores(model[HELD_OUT], calibration)),
    )


def _measured(
    sets: tuple[Judged, Judged] | NotMeasurable, model: ModelScores, calibration: Calibration
) -> ReferenceAuc | NotMeasurable:
    return sets if isinstance(sets, NotMeasurable) else reference_auc(*rejudged(sets, model, calibration))


def _scores(scores: SetScores, calibration: Calibration) -> Array:
    """Membership scores in the unit of the table, which need not be that of the other checks."""
    if scores.likelihood is None:
        return scores.membership
    units = scores.utf8_bytes if calibration.per_byte else scores.tokens
    return np.asarray(-scores.likelihood.nll / units, dtype=np.float64)


def _check(
    name: str,
    found: ReferenceAuc | NotMeasurable,
    policy: VerificationPolicy,
    alpha: float,
    n: int,
    m: int | None,
    design: AucDesign | None = None,
) -> Check:
    if isinstance(found, NotMeasurable):
        return Check(id=name, role="diagnostic", statistic=STATISTIC, n=n, m=m, reason=found.reason)
    told = f"AUC among records that {found.references} reference models without each find equally hard"
    check = auc_check(name, found.auc, alpha, margin_for(policy.auc_margin, found.auc.n), design, told)
    return check.model_copy(update={"references": found.references, "p_value": found.auc.p_value()})


def _value(found: ReferenceAuc | NotMeasurable) -> float | None:
    return found.auc.auc if isinstance(found, ReferenceAuc) else None
