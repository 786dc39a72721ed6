"""One statement about all publications so far: a wager on the outcomes of canaries that may be looked at any time.

At every publication an attack guesses, for canaries that were deleted along and for canaries that were never trained
on, which is which; each guess is an outcome in [0, 1], 1 where it was right. Without a leak the chance of a right guess
is 1/2, whatever happened before. A gambler who bets on more than `null` multiplies their money only if that is wrong:
the wealth is an e-process, and by Ville's inequality (1939) it ever reaches 1 / alpha with probability alpha at most.

The bets are a fixed mixture, and so predictable: for each log odds ratio l of a grid and a mean m to bet against, the
bet (e^l - 1) / (1 + m (e^l - 1)) per unit of (outcome - m) (betting: Waudby-Smith and Ramdas 2010.09686; mixtures:
Robbins 1970, Howard et al. 1810.08240). Its wealth after t outcomes with sum S is e^(l S) / (1 + m (e^l - 1))^t for
outcomes 0 and 1, and at most the true gambler's for outcomes in between. So S and t are all that has to be kept; and
because log(1 + m (e^l - 1)) is concave in m, the statement also holds for the *average* of chances that change from
publication to publication.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

CHANCE = 0.5
GUESSES, RIGHT = "canary_guesses", "canary_guesses_right"
"""Metrics of an evaluation: how many guesses one publication adds to the wager, and the sum of their outcomes."""
ODDS = np.geomspace(0.05, 4.0, 24)
"""Log odds ratios that are bet on with equal shares: from accuracies of 51 % to 98 % against a null of 1/2."""

_HALVINGS = 60
_LARGEST_EXPONENT = 700.0


def log_wealth(total: ArrayLike, count: ArrayLike, mean: float) -> Array:
    """Natural log of the wealth of betting that outcomes average more than `mean`; arrays broadcast.

    `total` is the sum of `count` outcomes. The expectation of the wealth is 1 at most, at every stopping time, where
    no conditional mean exceeds `mean`; one averaging above it lets the wealth grow.
    """
    sums, counts = np.asarray(total, dtype=np.float64), np.asarray(count, dtype=np.float64)
    growth = sums[..., None] * ODDS - counts[..., None] * np.log1p(mean * np.expm1(ODDS))
    most = growth.max(axis=-1)
    return np.asarray(most + np.log(np.exp(growth - most[..., None]).mean(axis=-1)), dtype=np.float64)


@dataclass(frozen=True)
class Wager:
    """The wager after all publications so far: a few numbers that are continued at the next publication.

    `null` is the mean that is bet against: 1/2 plus the leak that is tolerated. `total` is the sum of the `count`
    outcomes, `peak` the greatest log wealth there ever was. Raises ValueError for numbers that no outcomes give.
    """

    null: float = CHANCE
    total: float = 0.0
    count: int = 0
    peak: float = 0.0

    def __post_init__(self) -> None:
        """Checked here, since reports are read that others wrote."""
        if not (0 < self.null < 1 and 0 <= self.total <= self.count and 0 <= self.peak < math.inf):
            raise ValueError(
                "these numbers are no wager: null within 0 and 1, total within 0 and count, peak from 0 on"
            )

    @property
    def log_wealth(self) -> float:
        """Natural log of the wealth now; 0 at the start."""
        return float(log_wealth(self.total, self.count, self.null)) if self.count else 0.0

    @property
    def highest(self) -> float:
        """The greatest e-value there ever was, as far as a float holds it."""
        return math.exp(min(self.peak, _LARGEST_EXPONENT))

    def plus(self, total: float, count: int) -> "Wager":
        """The wager after one more publication, of whose `count` outcomes only their sum is known.

        It is looked at when they are all in, and not in between. Raises ValueError for a sum that no outcomes have.
        """
        if not 0 <= total <= count:
            raise ValueError("the sum of outcomes must lie within 0 and their number")
        more = replace(self, total=self.total + total, count=self.count + count)
        return replace(more, peak=max(self.peak, more.log_wealth))

    def alarm(self, alpha: float = 0.05) -> bool:
        """Whether the wealth ever reached 1 / alpha: without a leak this happens with probability alpha at most, over
        all publications together. It stays on, whatever comes later.
        """
        return self.peak >= -math.log(alpha)

    def interval(self, alpha: float = 0.05) -> Interval:
        """Bounds of the mean of the chances of all outcomes so far, that hold at all times at once with 1 - alpha.

        A confidence sequence by betting (2010.09686, section 4), with alpha / 2 for each side. Bounds of different
        times must not be intersected, since the mean that they hold for changes.
        """
        if not self.count:
            return 0.0, 1.0
        low = _least(self.total, self.count, alpha / 2)
        return low, 1.0 - _least(self.count - self.total, self.count, alpha / 2)


def fold(publications: Iterable[tuple[float, int]], null: float = CHANCE) -> list[Wager]:
    """The wager after each publication, from (sum of its outcomes, their number) in the order they were made."""
    wagers, wager = [], Wager(null)
    for total, count in publications:
        wager = wager.plus(total, count)
        wagers.append(wager)
    return wagers


def _least(total: float, count: int, alpha: float) -> float:
    """The least mean that betting on more has not refuted: the wealth falls in the mean, so that bisection finds it."""
    low, high = 0.0, 1.0
    if float(log_wealth(total, count, low)) < -math.log(alpha):
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if float(log_wealth(total, count, middle)) >= -math.log(alpha):
            low = middle
        else:
            high = middle
    return low
