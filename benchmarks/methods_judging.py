"""What a cell of the table of methods reads of a model: its scores, and what the gate says of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.closeness import Read
from service.errors import LetheError
from service.verification.policy import Policy
from service.verification.schema import Check
from service.verification.statistics import Array
from service.verification.verdict import BLIND, decide, explain, judge
from workers.metrics.blind_baseline import extract
from workers.metrics.tug_of_war import Levels
from workers.modeling.problem import Problem
from workers.modeling.records import Records
from workers.planning.assessment import Facts, assess
from workers.planning.calibrated import Calibration
from workers.planning.checks import BlindFeatures, blind_check
from workers.planning.opposed import opposed_by
from workers.planning.problems import Line
from workers.planning.score_tables import CANDIDATE, FORGET, HELD_OUT, ORIGINAL, RETAIN
from workers.planning.traces import classes_forgotten, difficulty_of, retained_copies
from workers.references.tables import SideTable


@dataclass(frozen=True)
class Scores:
    """One model's scores: the gate's table with `set`, and those of the test records."""

    table: pa.Table
    test: pa.Table
    language: bool

    def column(self, part: str, name: str) -> Array:
        """Values [N] of one set, in the order in which its records were given."""
        rows = np.flatnonzero(np.array(self.table["set"].to_pylist()) == part)
        return np.asarray(self.table[name].to_numpy(), dtype=np.float64)[rows]

    @property
    def utility(self) -> float:
        """Accuracy on test records; of a language model the loss on retained records, nats a token."""
        return float(self.column(RETAIN, "loss").mean() if self.language else np.mean(self.test["correct"].to_numpy()))

    @property
    def read(self) -> Read:
        """What closeness is computed from; the accuracy is that of the test records, by token for a language model."""
        accuracy = np.mean(self.test["token_accuracy" if self.language else "correct"].to_numpy())
        return Read(self.column(FORGET, "loss"), self.column(HELD_OUT, "loss"), float(accuracy))

    @property
    def levels(self) -> Levels:
        """Accuracies for the tug of war (which takes the efficacy of an attack only in another form)."""
        name = "token_accuracy" if self.language else "correct"
        forget, retain, held_out = (float(self.column(part, name).mean()) for part in (FORGET, RETAIN, HELD_OUT))
        return Levels(forget, retain, held_out, efficacy=0.0)

    @property
    def margins(self) -> Array:
        """Membership scores of the forgotten records [k]."""
        return -self.column(FORGET, "loss") if self.language else self.column(FORGET, "confidence")


@dataclass(frozen=True)
class Judging:
    """What every candidate of a cell is judged by: the gate's side of the pool, and facts that no candidate changes."""

    original: pa.Table
    task: str
    facts: Facts
    blind: Check
    references: Calibration

    @classmethod
    def of(cls, original: pa.Table, line: Line, problem: Problem, certified: Records, side: SideTable) -> "Judging":
        """Everything but the candidate's scores; `original` are those of the served model, `side` is the gate's."""
        ids = problem.forget.ids.tolist()
        facts = Facts(
            retain_records=len(problem.retain),
            near_duplicates=retained_copies(line, ids),
            difficulty=difficulty_of(line, ids),
            forgotten_classes=classes_forgotten(line, ids),
        )
        blind = blind_check(_blind(problem.forget, certified), True, Policy().attempt_alpha, 0)
        return cls(original, problem.task_name, facts, blind, Calibration(side, per_byte=False))

    def verdict(self, scores: Scores, directory: Path, same: bool) -> tuple[str, str]:
        """The gate's verdict by measurement at the level of one attempt, and its reason."""
        facts = replace(self.facts, files_differ=not same, opposed=opposed_by(directory))
        tables: Mapping[str, pa.Table] = {ORIGINAL: self.original, CANDIDATE: scores.table}
        policy = Policy()
        options: dict[str, Any] = {"alpha": policy.attempt_alpha, "ignore_record": True, "references": self.references}
        try:
            found = assess(tables, self.task, policy, facts=facts, **options)
        except LetheError as error:
            return "fail", error.detail
        raw = [self.blind if check.id == BLIND else check for check in found.checks]
        checks = judge(raw, "measurement", policy.verification)
        return decide(checks, "measurement")[0], explain(checks, "measurement")


def _blind(forget: Records, certified: Records) -> BlindFeatures:
    features = [extract(records.take(range(len(records)))) for records in (forget, certified)]
    people = [np.asarray(records.subjects) for records in (forget, certified)]
    return BlindFeatures(features[0], people[0], features[1], people[1])
