"""The perturbed forget gap of an evaluation: forgotten records are changed once, and every model answers them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from service.verification.schema import Check
from service.verification.statistics import Clusters, Mean, NotMeasurable
from workers.metrics.perturbed_forget_gap import perturbed_forget_gap
from workers.modeling.loading import LoadedModel
from workers.modeling.problem import Context
from workers.modeling.progress import part_of
from workers.modeling.records import Records
from workers.planning.score_tables import CANDIDATE, ORIGINAL, RETRAINED
from workers.robustness.perturbed import STEPS, augmented, generated
from workers.robustness.readings import Reading, read_scores
from workers.scoring.score import score

PERTURBED, SHIFTED = "perturbed_forget_gap", "shifted_forget_gap"
_LIMIT = 1000


class Shifts:
    """Answers to changed forgotten records (a sample of at most 1,000) by model. The original comes first."""

    def __init__(self, forget: Records, per_byte: bool) -> None:
        self._forget, self._per_byte = forget, per_byte
        self._sets: dict[str, Records | NotMeasurable] = {}
        self._readings: dict[str, dict[str, Reading]] = {PERTURBED: {}, SHIFTED: {}}

    def at(self, name: str, loaded: LoadedModel, context: Context) -> int:
        """Have a model answer; how many forward passes that took."""
        passes = 0
        if not self._sets:
            order = np.random.default_rng(context.seed).permutation(len(self._forget))[:_LIMIT]
            chosen = self._forget.subset(np.sort(order).tolist())
            made = generated(loaded, chosen, part_of(context, 0.0, 0.6, "changed records"))
            self._sets = {PERTURBED: augmented(loaded, chosen, context.seed), SHIFTED: made}
            passes = 0 if isinstance(made, NotMeasurable) else STEPS
        for number, (kind, records) in enumerate(self._sets.items()):
            if not isinstance(records, NotMeasurable):
                scored = score(loaded, records, part_of(context, 0.6 + 0.2 * number, 0.8 + 0.2 * number, "changed"))
                self._readings[kind][name] = read_scores(scored.table, self._per_byte)
                passes += scored.forward_passes
        return passes

    def told(self) -> tuple[list[Check], dict[str, Any]]:
        """(a check for each way of changing records, metrics)."""
        checks: list[Check] = []
        metrics: dict[str, Any] = {}
        for kind, readings in self._readings.items():
            made = self._sets[kind]
            if isinstance(made, NotMeasurable):
                checks.append(Check(id=kind, role="diagnostic", statistic=_STATISTIC, reason=made.reason))
                continue
            gaps = {name: _gap(readings, name) for name in readings if name != ORIGINAL}
            checks.append(_check(kind, gaps[CANDIDATE], readings[ORIGINAL].subjects))
            metrics[kind] = gaps[CANDIDATE].estimate
            retrained = [gap.estimate for name, gap in gaps.items() if name.startswith(RETRAINED)]
            metrics |= {f"{kind}_retrained": retrained} if retrained else {}
        return checks, metrics


_STATISTIC = "accuracy lost since the original on changed forgotten records"


def _gap(readings: Mapping[str, Reading], name: str) -> Mean:
    before = readings[ORIGINAL]
    return perturbed_forget_gap(before.accuracy, readings[name].accuracy, before.subjects)


def _check(kind: str, gap: Mean, subjects: Clusters) -> Check:
    measured = len(np.unique(subjects)) > 1
    return Check(
        id=kind,
        role="diagnostic",
        statistic=_STATISTIC,
        estimate=gap.estimate,
        ci95=gap.interval(0.95) if measured else None,
        n=gap.n,
        cluster="subject",
        clusters=(gap.clusters,),
        reason="read beside a retrain's: 0 is the original itself",
    )
