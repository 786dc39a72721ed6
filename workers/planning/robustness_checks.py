"""What rounding and a few training steps bring back: each model is loaded once more, after it has been judged.

Diagnostics that change no verdict. They cost about three more scorings of the forgotten and held-out records by each
model, two more of changed forgotten records, a small generator of images trained beside the original and, where there
are retrained models, 50 training steps of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from service.catalogue.precisions import FULL, PRECISIONS, Precision
from service.catalogue.recipes import Recipe
from service.verification.schema import Check, Evaluation
from service.verification.statistics import NotMeasurable
from service.verification.verdict import MEMBERSHIP, NOT_RUN
from workers.metrics.relearning import Excess
from workers.modeling.loading import load_model
from workers.modeling.problem import Context, Progress
from workers.modeling.progress import part_of
from workers.modeling.records import Records
from workers.modeling.training_record import read_record
from workers.planning.checks import NO_HELD_OUT
from workers.planning.score_tables import CANDIDATE, FORGET, HELD_OUT, ORIGINAL, RETRAINED
from workers.planning.shift_checks import Shifts
from workers.robustness.precision import Rung, precision_ladder, rung
from workers.robustness.readings import read_scores
from workers.robustness.relearning import Recovery, RelearningPlan, excess, halves, plan_relearning, relearn

READ_AT = 20
"""Steps after which the excess of the check is read; the others stand beside it in the metrics."""

RELEARNING = "relearning_excess"
SHARE = 0.5
"""Of a robust evaluation's progress, what judging takes."""

_NO_RETRAIN = NotMeasurable(f"{NOT_RUN}no retrained model to compare with: give --retrained")


@dataclass(frozen=True)
class Probed:
    """What the probes need: directories by model name, the sets that were scored, and how the line was trained.

    `recipe` None takes that of the original's training record, where it has one.
    """

    directories: Mapping[str, Path]
    forget: Records
    held_out: Records | None
    recipe: Recipe | None

    @property
    def training(self) -> Recipe | None:
        """The recipe, wherever it is found."""
        record = read_record(self.directories[ORIGINAL])
        return self.recipe or (record.recipe if record is not None else None)


def scaled(context: Context, start: float, end: float) -> Context:
    """The same context, whose progress from 0 to 1 is told as `start` to `end`, with its own messages."""

    def told(progress: Progress) -> None:
        context.progress(replace(progress, fraction=start + (end - start) * progress.fraction, eta_seconds=None))

    return replace(context, progress=told)


Tables = Mapping[Precision, Mapping[str, pa.Table]]
"""Score tables by precision and model."""


def with_robustness(found: Evaluation, tables: Tables, probed: Probed, context: Context) -> Evaluation:
    """The evaluation with its robustness diagnostics, metrics and passes.

    `tables` are those that are there already, of weights as stored at least: no precision is scored twice. Progress
    goes on from `SHARE`. Raises Cancelled, BadModel for a directory that cannot be loaded any more.
    """
    looked = _Look(found, tables, probed)
    for number, name in enumerate(probed.directories):
        share = (1 - SHARE) / len(probed.directories)
        looked.at(name, scaled(context, SHARE + number * share, SHARE + (number + 1) * share))
    checks, metrics = looked.precision()
    recovery, more = looked.relearning()
    shifted, gaps = looked.shifts()
    passes = {name: count + looked.passes[name] for name, count in found.forward_passes.items()}
    return found.model_copy(
        update={
            "checks": [*found.checks, *checks, recovery, *shifted],
            "metrics": found.metrics | metrics | more | gaps,
            "forward_passes": passes,
        }
    )


class _Look:
    """Ladders and recoveries by model, as they are measured."""

    def __init__(self, found: Evaluation, tables: Tables, probed: Probed) -> None:
        self._found, self._probed, self._tables = found, probed, tables
        self._per_byte = found.unit == "byte"
        self.passes = dict.fromkeys(found.forward_passes, 0)
        self._ladders: dict[str, dict[str, Rung]] = {}
        self._recoveries: dict[str, Recovery | NotMeasurable] = {}
        self._plan = plan_relearning(found.task, probed.training)
        self._shifts = Shifts(probed.forget, self._per_byte)

    @property
    def _retrained(self) -> list[str]:
        return [name for name in self._probed.directories if name.startswith(RETRAINED)]

    def at(self, name: str, context: Context) -> None:
        """Load one model, round it and teach it."""
        loaded = load_model(self._probed.directories[name], self._found.task, context.device)
        if self._probed.held_out is not None:
            sets = self._probed.forget, self._probed.held_out
            watched = part_of(context, 0.0, 0.5, f"the {name} model")
            missing = [precision for precision in PRECISIONS if precision not in self._tables]
            climbed = precision_ladder(loaded, *sets, watched, missing, self._per_byte)
            scored = [self._scored(name, precision) for precision in PRECISIONS if precision in self._tables]
            self._ladders[name] = {one.precision: one for one in (*climbed, *scored)}
            self.passes[name] += sum(one.forward_passes for one in climbed)
        self.passes[name] += self._shifts.at(name, loaded, part_of(context, 0.5, 0.6, f"the {name} model"))
        parts = halves(self._probed.forget, context.seed) if self._retrained else _NO_RETRAIN
        if isinstance(parts, NotMeasurable):
            self._recoveries[name] = parts
            return
        watched = part_of(context, 0.6, 1.0, f"the {name} model")
        found = relearn(loaded, *parts, self._plan, watched, self._per_byte)
        self._recoveries[name] = found
        if isinstance(found, Recovery):
            self.passes[name] += found.forward_passes

    def precision(self) -> tuple[list[Check], dict[str, Any]]:
        """(one check for each precision, metrics)."""
        if self._probed.held_out is None:
            return [Check(id=f"precision_{name}", role="diagnostic", statistic=_rounded_to(name), reason=NO_HELD_OUT)
                    for name in PRECISIONS], {}  # fmt: skip
        full = self._scored(CANDIDATE, FULL)
        attack = self._found.check(MEMBERSHIP)
        alpha = attack.alpha if attack is not None else None
        checks = [_precision_check(self._ladders[CANDIDATE][precision], full, alpha) for precision in PRECISIONS]
        metrics: dict[str, Any] = {}
        for precision in PRECISIONS:
            rungs = {name: ladder[precision] for name, ladder in self._ladders.items()}
            name = f"precision_{precision}"
            metrics |= _beside(name, {model: one.auc.auc for model, one in rungs.items()})
            accuracy = {model: one.held_out_accuracy.estimate for model, one in rungs.items()}
            metrics |= _beside(f"{name}_accuracy", accuracy)
        return checks, metrics

    def _scored(self, name: str, precision: Precision) -> Rung:
        """A model in a precision that it was judged in."""
        table = self._tables[precision][name]
        forget, held_out = (
            read_scores(table.filter(pc.equal(table["set"], part)), self._per_byte) for part in (FORGET, HELD_OUT)
        )
        return rung(precision, forget, held_out)

    def shifts(self) -> tuple[list[Check], dict[str, Any]]:
        """(what changed forgotten records show, metrics)."""
        return self._shifts.told()

    def relearning(self) -> tuple[Check, dict[str, Any]]:
        """(the candidate's excess, metrics)."""
        found = self._excess(CANDIDATE, READ_AT)
        check = _relearning_check(found, self._plan)
        whole = {name: one for name, one in self._recoveries.items() if isinstance(one, Recovery)}
        if len(whole) < len(self._probed.directories):
            return check, {}
        steps = (0, *self._plan.steps)
        values = {name: _value(self._excess(name, READ_AT)) for name in self._probed.directories}
        metrics = _beside(RELEARNING, values) | {"relearning_steps": [*steps]}
        metrics |= _beside("relearning_accuracy", {name: one.curve for name, one in whole.items()})
        metrics |= _beside("relearning_score", {name: one.scores for name, one in whole.items()})
        metrics[f"{RELEARNING}_by_step"] = [_value(self._excess(CANDIDATE, step)) for step in steps]
        return check, metrics

    def _excess(self, name: str, step: int) -> Excess | NotMeasurable:
        """Of one model over the retrained ones; a retrained one is held against the others."""
        own = self._recoveries[name]
        if isinstance(own, NotMeasurable):
            return own
        others = [self._recoveries[other] for other in self._retrained if other != name]
        apart = [one for one in others if isinstance(one, NotMeasurable)]
        if apart:
            return NotMeasurable(f"a retrained model is {apart[0].reason}")
        return excess(step, own, [one for one in others if isinstance(one, Recovery)])


def _rounded_to(precision: str) -> str:
    return f"AUC with weights rounded to {precision}"


def _precision_check(found: Rung, full: Rung, alpha: float | None) -> Check:
    told = f"{full.auc.auc:.3f} at {FULL}; accuracy on held-out records {found.held_out_accuracy.estimate:.3f}"
    return Check(
        id=f"precision_{found.precision}",
        role="diagnostic",
        statistic=_rounded_to(found.precision),
        estimate=found.auc.auc,
        alpha=alpha,
        ci=found.auc.interval(1 - 2 * alpha) if alpha is not None else None,
        ci95=found.auc.interval(0.95),
        n=found.auc.n,
        m=found.auc.m,
        cluster="subject",
        clusters=found.auc.clusters,
        reason=f"{told}, {full.held_out_accuracy.estimate:.3f} at {FULL}",
    )


def _relearning_check(found: Excess | NotMeasurable, plan: RelearningPlan) -> Check:
    check = Check(
        id=RELEARNING,
        role="diagnostic",
        statistic=f"right answers beyond retrained models' after {READ_AT} steps on other forgotten records",
    )
    if isinstance(found, NotMeasurable):
        return check.model_copy(update={"reason": found.reason})
    told = f"AdamW at {plan.learning_rate:.2g}, {plan.batch_size} records a step"
    if found.references == 1:
        told += "; over one retrained model, so that the luck of its training is part of it"
    values = {"estimate": found.estimate, "ci95": found.interval(0.95), "n": found.n, "cluster": "subject"}
    values |= {"clusters": (found.clusters,), "references": found.references, "reason": told}
    return check.model_copy(update=values)


def _beside(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: values[CANDIDATE], f"{name}_do_nothing": values[ORIGINAL]}
    retrained: Sequence[Any] = [value for model, value in values.items() if model.startswith(RETRAINED)]
    return found | ({f"{name}_retrained": [*retrained]} if retrained else {})


def _value(found: Excess | NotMeasurable) -> float | None:
    return None if isinstance(found, NotMeasurable) else found.estimate
