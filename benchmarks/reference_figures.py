"""The figures of the benchmark of references, from score tables that lie on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from scipy.stats import spearmanr

from benchmarks.reference_world import TASK, World
from service.datasets.records import RecordTable
from service.verification.statistics import Array, Auc, Clusters, NotMeasurable, clustered_auc
from workers.metrics.reference_auc import (
    Judged,
    ReferenceAuc,
    calibrated_scores,
    monotone_correction,
    pooled_variance,
    reference_auc,
)
from workers.metrics.tpr_at_fpr import OperatingPoint, tpr_at_fpr
from workers.modeling.loading import load_model
from workers.modeling.problem import Context
from workers.references.layout import HELD_OUT, TRAIN, Pool, member_path, read_split
from workers.references.split import Side
from workers.references.tables import SideTable, membership, side_table
from workers.scoring.score import score

VARIANCES = {"own variance": 1e-6, "pooled variance": 1e9, "shrunk variance": 4.0}


def members_table(pool: Pool, pairs: Sequence[int]) -> SideTable:
    """The table of these pairs of a pool's members."""
    numbers = [2 * pair + half for pair in pairs for half in (0, 1)]
    paths = [pool.directory / member_path(number, 0) for number in numbers]
    return SideTable(side_table(read_split(pool.directory), paths, TASK))


def side_pairs(pool: Pool, count: int, side: Side) -> list[int]:
    """The pairs of a side that a pool of only `count` members would have."""
    return [pair for pair in pool.facts.sides[side] if pair < count // 2]


def rank_correlation(values: Array, truth: Array) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(values, truth).statistic)


def score_gap(side: SideTable, ids: Clusters) -> Array:
    """How much surer members are that saw each record: memorization without the rounding of an accuracy."""
    rows = side.rows(TRAIN, ids)
    return side.column("in_mean")[rows] - side.column("out_mean")[rows]


@dataclass(frozen=True)
class Scored:
    """Membership scores [n] of one model on records of one set, with what they are matched and clustered by."""

    ids: Clusters
    subjects: Clusters
    labels: Clusters
    values: Array

    def of(self, ids: Sequence[str]) -> "Scored":
        """The records with these ids."""
        rows = np.flatnonzero(np.isin(self.ids, np.array(ids)))
        return Scored(self.ids[rows], self.subjects[rows], self.labels[rows], self.values[rows])

    def judged(self, side: SideTable, part: str) -> Judged:
        """Beside the statistics of a side."""
        return side.judged(part, self.ids, self.values, self.subjects, self.labels)


def scored(directory: Path, records: RecordTable) -> Scored:
    """One pass of a model over records."""
    context = Context(torch.device("cpu"))
    table: pa.Table = score(load_model(directory, TASK, context.device), records, context).table
    labels = np.asarray(table["label"].to_pylist(), dtype=np.int64)
    return Scored(records.ids, records.subjects, labels, membership(table, TASK))


@dataclass(frozen=True)
class Detected:
    """What one attack finds: its AUC, and members found at a false-positive rate of 1 %."""

    auc: Auc
    point: OperatingPoint

    def told(self) -> dict[str, float]:
        """For the JSON file."""
        return {"auc": self.auc.auc, "se": self.auc.se, "tpr_at_1_percent": self.point.rate}


def attacks(members: Judged, others: Judged) -> dict[str, Detected]:
    """Attack -> what it finds; members and never-seen records of one untouched model."""
    pooled = pooled_variance(others.variance, others.count)
    found = {"global threshold": _detected(members, others, members.scores, others.scores)}
    for name, weight in VARIANCES.items():
        z = (
            calibrated_scores(part.scores, part.mean, part.variance, part.count, pooled, weight)[1]
            for part in (members, others)
        )
        found[name] = _detected(members, others, *z)
    corrected = (
        calibrated_scores(
            part.scores,
            monotone_correction(others.mean, others.scores, part.mean),
            part.variance,
            part.count,
            pooled,
        )[1]
        for part in (members, others)
    )
    found["shrunk variance, monotone correction"] = _detected(members, others, *corrected)
    return found


def _detected(members: Judged, others: Judged, ours: Array, theirs: Array) -> Detected:
    point = tpr_at_fpr(ours, theirs, members.subjects)
    if isinstance(point, NotMeasurable):
        raise TypeError(point.reason)
    return Detected(clustered_auc(ours, theirs, members.subjects, others.subjects), point)


@dataclass(frozen=True)
class Reading:
    """Forgotten against held-out records of one model, read in three ways."""

    population: Auc
    affine: Auc
    matched: ReferenceAuc

    def told(self) -> dict[str, object]:
        """For the JSON file."""
        return {
            "population": self.population.auc,
            "affine": self.affine.auc,
            "matched": self.matched.auc.auc,
            "matched_ci95": self.matched.auc.interval(0.95),
            "references": self.matched.references,
            "outside": self.matched.outside,
        }


def reading(side: SideTable, forget: Scored, held_out: Scored) -> Reading:
    """Population attack, references with one affine correction over all held-out records, and `reference_auc`."""
    ours, theirs = forget.judged(side, TRAIN), held_out.judged(side, HELD_OUT)
    matched = reference_auc(ours, theirs)
    if isinstance(matched, NotMeasurable):
        raise TypeError(matched.reason)
    slope, level = (float(value) for value in np.polyfit(theirs.mean, theirs.scores, 1))
    pooled = pooled_variance(theirs.variance, theirs.count)
    left, others = (
        calibrated_scores(part.scores, slope * part.mean + level, part.variance, part.count, pooled)[1]
        for part in (ours, theirs)
    )
    return Reading(
        clustered_auc(ours.scores, theirs.scores, ours.subjects, theirs.subjects),
        clustered_auc(left, others, ours.subjects, theirs.subjects),
        matched,
    )


def held_out_scores(world: World, directory: Path) -> Scored:
    """A model on the held-out records."""
    return scored(directory, world.records("held_out"))


def train_scores(world: World, directory: Path) -> Scored:
    """A model on the training records, deleted ones included."""
    return scored(directory, world.records("train"))
