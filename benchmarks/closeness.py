"""How near a model comes to retrains without the forgotten records, beside how near retrains come to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Read:
    """What one model says: losses of the forgotten [N] and of test records [T], nats, and its test accuracy."""

    forget: Array
    test: Array
    accuracy: float

    @property
    def auc(self) -> float:
        """P(a forgotten record loses less than a test record), ties one half: the loss attack."""
        order = np.sort(self.test)
        above = len(order) - np.searchsorted(order, self.forget, side="right")
        ties = np.searchsorted(order, self.forget, side="right") - np.searchsorted(order, self.forget, side="left")
        return float(np.mean((above + ties / 2) / len(order)))


@dataclass(frozen=True)
class Distance:
    """From the mean of some retrains: per-record loss (median and 95th percentile of |.|, nats), AUC and accuracy."""

    median: float
    p95: float
    auc: float
    accuracy: float


def distance(model: Read, retrains: Sequence[Read]) -> Distance:
    """How far a model lies from the mean of these retrains; signed for AUC and accuracy."""
    gap = np.abs(model.forget - np.mean([each.forget for each in retrains], axis=0))
    return Distance(
        median=float(np.median(gap)),
        p95=float(np.quantile(gap, 0.95)),
        auc=model.auc - float(np.mean([each.auc for each in retrains])),
        accuracy=model.accuracy - float(np.mean([each.accuracy for each in retrains])),
    )


@dataclass(frozen=True)
class Band:
    """What a retrain may differ from the others by: 95th percentiles over retrains, each against the others."""

    p95: float
    auc: float
    accuracy: float


SMALLEST_AUC, SMALLEST_ACCURACY = 0.02, 0.005
"""Nothing nearer is asked for, however well retrains agree."""


def band(retrains: Sequence[Read]) -> Band:
    """The band of at least three retrains."""
    others = [[each for each in retrains if each is not one] for one in retrains]
    found = [distance(one, rest) for one, rest in zip(retrains, others, strict=True)]
    return Band(
        p95=float(np.quantile([each.p95 for each in found], 0.95)),
        auc=max(float(np.quantile([abs(each.auc) for each in found], 0.95)), SMALLEST_AUC),
        accuracy=max(float(np.quantile([abs(each.accuracy) for each in found], 0.95)), SMALLEST_ACCURACY),
    )


def within(found: Distance, allowed: Band) -> dict[str, bool]:
    """Which of the three lie inside the band."""
    return {
        "p95": found.p95 <= allowed.p95,
        "auc": abs(found.auc) <= allowed.auc,
        "accuracy": abs(found.accuracy) <= allowed.accuracy,
    }
