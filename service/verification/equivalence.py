"""Equivalence to zero within a margin: the three outcomes, and whether a design can reach them, before any result.

The measure is one whose value is 0 without a leak: an AUC less 0.5, a difference of two AUCs, a mean shift. Positive is
a leak, negative is over-forgetting. All functions are pure; `df` may be infinite where the standard error is known.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.verification.quantiles import normal_cdf, normal_quantile, regularised_beta, student_quantile
from service.verification.schema import Verdict
from service.verification.statistics import POWER, Interval

Array = NDArray[np.float64]

_NODES = 200
_SPREADS = 10.0
_HALVINGS = 60
_ALL = (-math.inf, math.inf)


@dataclass(frozen=True)
class Equivalence:
    """What two one-sided tests say. `ci` has the level 1 - 2 alpha and decides a pass, `ci95` decides a fail.

    `p_value` is the greater of the two one-sided ones: of "the leak is as great as the margin, on one side or the
    other". It is at most alpha exactly where the outcome is a pass.
    """

    outcome: Verdict
    p_value: float
    ci: Interval
    ci95: Interval


def equivalence(estimate: float, se: float, df: float, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided tests at `alpha` each (Schuirmann 1987) of an estimate with a normal or Student's t error.

    Pass: the 1 - 2 alpha interval lies inside (-margin, margin). Fail: the 95 % interval lies outside of it, on either
    side. Otherwise inconclusive, always so for less than one degree of freedom, where the intervals are infinite.
    Raises ValueError where se or margin are not positive: a variance of zero, estimated from few records, is no
    evidence of having no error.
    """
    if df < 1:
        return Equivalence("inconclusive", 1.0, _ALL, _ALL)
    if not (0 < se < math.inf and margin > 0 and math.isfinite(estimate)):
        raise ValueError("an equivalence test takes a finite estimate, and a standard error and margin above zero")
    ci, ci95 = (_around(estimate, quantile(1 - tail, df) * se) for tail in (alpha, 0.025))
    p_value = max(_tail((estimate + margin) / se, df), _tail((margin - estimate) / se, df))
    outcome: Verdict = "inconclusive"
    if ci95[0] > margin or ci95[1] < -margin:
        outcome = "fail"
    elif -margin < ci[0] and ci[1] < margin:
        outcome = "pass"
    return Equivalence(outcome, p_value, ci, ci95)


def _around(estimate: float, width: float) -> Interval:
    return estimate - width, estimate + width


def quantile(probability: float, df: float) -> float:
    """Quantile of Student's t, or of the normal distribution for infinite `df`."""
    return normal_quantile(probability) if math.isinf(df) else student_quantile(probability, df)


def _tail(value: float, df: float) -> float:
    """P(T > value)."""
    if math.isinf(df):
        return normal_cdf(-value)
    beyond = regularised_beta(df / (df + value * value), df / 2, 0.5) / 2
    return beyond if value > 0 else 1 - beyond


@dataclass(frozen=True)
class Design:
    """What an estimate with this true standard error, estimated on `df` degrees of freedom, can show.

    All probabilities are exact for a normal estimate with an independent chi-square variance: they average over the
    standard errors that may be estimated, instead of taking the true one for granted.
    """

    se: float
    df: float

    def power(self, margin: float, alpha: float = 0.05, leak: float = 0.0) -> float:
        """Probability of a pass when the true value is `leak`: the power at 0, the chance of a false pass beyond."""
        if self.df < 1:
            return 0.0
        t = quantile(1 - alpha, self.df)

        def passes(scale: Array) -> Array:
            room = margin - t * self.se * scale
            return _cdf((room - leak) / self.se) - _cdf((-room - leak) / self.se)

        return _averaged(passes, self.df, margin / (t * self.se))

    def smallest_detectable(self, alpha: float = 0.05, power: float = POWER) -> float | None:
        """The leak that a one-sided test at `alpha` finds with that power; None below one degree of freedom."""
        if self.df < 1:
            return None
        t = quantile(1 - alpha, self.df)
        low, high = 0.0, self.se
        while self._found(high, t) < power:
            high *= 2
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._found(middle, t) < power else (low, middle)
        return high

    def _found(self, leak: float, t: float) -> float:
        return _averaged(lambda scale: _cdf(leak / self.se - t * scale), self.df, math.inf)


def _cdf(values: Array) -> Array:
    return np.array([normal_cdf(float(value)) for value in values])


def _averaged(probability: Callable[[Array], Array], df: float, most: float) -> float:
    """The mean of a probability over s / sigma, which is chi of `df` over its root; zero where that exceeds `most`."""
    if math.isinf(df):
        return float(probability(np.ones(1))[0]) if most > 1 else 0.0
    spread = _SPREADS / math.sqrt(2 * df)
    low, high = max(0.0, 1 - spread), min(1 + spread, most)
    if high <= low:
        return 0.0
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    at = low + (high - low) * (nodes + 1) / 2
    constant = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2)
    density = np.exp(constant + (df - 1) * np.log(at) - df * at**2 / 2)
    return float((high - low) / 2 * (weights * density * probability(at)).sum())


def records_needed(
    margin: float, others: float = math.inf, alpha: float = 0.05, power: float = POWER, effect: float = 1.0
) -> int | None:
    """Fewest forgotten records with which a model without any leak passes an AUC of 0.5 +- margin with that power.

    From the null variance e (m + n + 1) / 12 m n (Hanley and McNeil 1982) with m = `others` comparison records: for
    many of them n is about (z_.95 + z_.90)^2 / 12 margin^2. `effect` e is how many times clustering multiplies the
    variance. None where no number suffices, because the comparison records alone are too few.
    """
    variance = _variance_allowed(margin, alpha, power) / effect
    if math.isinf(others):
        return math.ceil(1 / (12 * variance) - 1e-9)
    rest = 12 * others * variance - 1
    return None if rest <= 0 else math.ceil((others + 1) / rest - 1e-9)


def records_needed_each(
    margin: float, ratio: float = 1.0, alpha: float = 0.05, power: float = POWER, effect: float = 1.0
) -> int:
    """The same where there are `ratio` comparison records to each forgotten one; twice as many for equal sides."""
    curve = 12 * ratio * _variance_allowed(margin, alpha, power) / effect
    return math.ceil((1 + ratio + math.sqrt((1 + ratio) ** 2 + 4 * curve)) / (2 * curve) - 1e-9)


def _variance_allowed(margin: float, alpha: float, power: float) -> float:
    return (margin / (normal_quantile(1 - alpha) + normal_quantile(0.5 + power / 2))) ** 2


@dataclass(frozen=True)
class GatePower:
    """How likely a model without any leak passes several checks at once.

    `at_least` holds however the checks depend on each other (Bonferroni), `independent` where they do not, and
    `at_most` is the power of the weakest.
    """

    at_least: float
    independent: float
    at_most: float

    def powered(self, wanted: float = POWER) -> bool:
        """Whether so much is certain whatever the dependence; otherwise the suite is underpowered by design."""
        return self.at_least >= wanted


def gate_power(powers: Sequence[float]) -> GatePower:
    """The power of a gate that all its checks have to pass. Raises ValueError for none, or for what is no probability.

    Known before any result: it follows from sizes and margins alone.
    """
    if not powers or not all(0 <= power <= 1 for power in powers):
        raise ValueError("the powers of a gate's checks are probabilities, at least one of them")
    return GatePower(max(0.0, 1 - sum(1 - power for power in powers)), math.prod(powers), min(powers))
