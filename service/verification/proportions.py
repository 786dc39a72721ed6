"""Shares of independent trials: exact bounds, how many trials a bound takes, and differences of two shares.

For decisions the bounds are those of Clopper and Pearson (1934), which never cover less than they say. Counts may be
real numbers: the effective counts of clustered data (Korn and Graubard 1998).
"""

import math
from dataclasses import dataclass

from service.verification.quantiles import beta_quantile, clopper_pearson, normal_quantile

Interval = tuple[float, float]


@dataclass(frozen=True)
class Proportion:
    """`found` out of `trials` independent trials. Raises ValueError where the counts are no counts."""

    found: float
    trials: float

    def __post_init__(self) -> None:
        """Counts are checked here, so that no bound is ever computed from impossible ones."""
        if not 0 <= self.found <= self.trials < math.inf or self.trials <= 0:
            raise ValueError(f"{self.found:g} of {self.trials:g} is no proportion; found must be within 0 and trials")

    @property
    def rate(self) -> float:
        """The observed share."""
        return self.found / self.trials

    def effective(self, effect: float) -> "Proportion":
        """The same share of fewer trials, where clustering multiplies its variance by `effect`, at least 1."""
        return Proportion(self.found / effect, self.trials / effect)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Exact two-sided bounds (Clopper and Pearson 1934)."""
        return clopper_pearson(self.found, self.trials, confidence)

    def lower(self, alpha: float = 0.05) -> float:
        """The exact one-sided lower bound: below the true rate with probability 1 - alpha at least."""
        return 0.0 if self.found <= 0 else beta_quantile(alpha, self.found, self.trials - self.found + 1.0)

    def upper(self, alpha: float = 0.05) -> float:
        """The exact one-sided upper bound; 1 - alpha^(1/n) where nothing was found among n."""
        return 1.0 if self.found >= self.trials else beta_quantile(1 - alpha, self.found + 1, self.trials - self.found)

    def score_interval(self, confidence: float = 0.95) -> Interval:
        """Wilson's score bounds (1927): for plots and differences, not for decisions, since they may cover too little.

        They are closer to nominal on average than the exact ones.
        """
        z, n = normal_quantile(0.5 + confidence / 2), self.trials
        middle = (self.found + z * z / 2) / (n + z * z)
        width = z / (n + z * z) * math.sqrt(n * self.rate * (1 - self.rate) + z * z / 4)
        return max(0.0, middle - width), min(1.0, middle + width)


def trials_needed(rate: float, found: int = 0, alpha: float = 0.05) -> int:
    """Fewest trials whose exact one-sided upper bound reaches `rate` when `found` of them are hits.

    0 false positives among 2,995 non-members are what it takes to show a false-positive rate of 0.1 %; each one that
    is found asks for more. Raises ValueError for a rate outside (0, 1) or a negative count.
    """
    if not 0 < rate < 1 or found < 0:
        raise ValueError(f"a rate within 0 and 1 and a count of 0 or more are needed, not {rate:g} and {found}")
    too_few, enough = found, found + 1
    while Proportion(found, enough).upper(alpha) > rate:
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if Proportion(found, middle).upper(alpha) > rate:
            too_few = middle
        else:
            enough = middle
    return enough


def newcombe(first: Proportion, second: Proportion, confidence: float = 0.95) -> Interval:
    """Bounds of first.rate - second.rate of two independent samples: Newcombe's hybrid score method.

    Newcombe (1998), Statistics in Medicine 17, 873-890, method 10, without continuity correction. Not for the same
    records under two models, which are paired.
    """
    (low, high), (second_low, second_high) = first.score_interval(confidence), second.score_interval(confidence)
    difference = first.rate - second.rate
    down = math.hypot(first.rate - low, second_high - second.rate)
    up = math.hypot(high - first.rate, second.rate - second_low)
    return max(-1.0, difference - down), min(1.0, difference + up)
