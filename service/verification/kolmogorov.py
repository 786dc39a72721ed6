"""The greatest distance between two empirical distribution functions, as a size with bounds and not as a p-value.

With few records "p > 0.05" is easy to reach, and with many it is out of reach for any two trainings; the distance says
how far apart they are.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Distance:
    """Kolmogorov-Smirnov distance of samples of `n` and `m` independent values: 0 for the same, 1 for separate ones."""

    distance: float
    n: int
    m: int

    def interval(self, confidence: float = 0.95) -> Interval:
        """Bounds of the true distance that cover at least so often, for any sizes: wide, and never below nominal.

        Each empirical function is off by sqrt(ln(2 / a) / 2 n) at most with probability 1 - a (Dvoretzky, Kiefer and
        Wolfowitz 1956, Massart 1990), here with half the error for each sample.
        """
        reach = sum(math.sqrt(math.log(4 / (1 - confidence)) / (2 * size)) for size in (self.n, self.m))
        return max(0.0, self.distance - reach), min(1.0, self.distance + reach)


def kolmogorov(first: Array, second: Array) -> Distance:
    """The two-sample distance. Raises ValueError for an empty sample or one with nan."""
    if not len(first) or not len(second) or np.isnan(first).any() or np.isnan(second).any():
        raise ValueError("a distance takes two samples of numbers")
    at = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(sample), at, side="right") / len(sample) for sample in (first, second)]
    return Distance(float(np.abs(below[0] - below[1]).max()), len(first), len(second))


def critical_distance(n: int, m: int, alpha: float = 0.05) -> float:
    """The distance that samples of one distribution exceed with chance `alpha`, for large n and m (Smirnov 1948).

    sqrt(-ln(alpha / 2) / 2) sqrt((n + m) / n m): 1.358 sqrt(2 / n) for two samples of n at 5 %. For small samples it is
    a little too large. Raises ValueError for an empty sample or a level outside (0, 1).
    """
    if n < 1 or m < 1 or not 0 < alpha < 1:
        raise ValueError("a critical distance takes two samples and a level within 0 and 1")
    return math.sqrt(-math.log(alpha / 2) / 2 * (n + m) / (n * m))
