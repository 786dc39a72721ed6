"""Distribution functions that the gate's intervals need, on the standard library alone.

The regularised incomplete beta function is the one special function behind Student's t and Clopper-Pearson bounds;
everything else here inverts it. Accuracy is better than 1e-9, which tests compare with SciPy.
"""

import functools
import math
from statistics import NormalDist

_NORMAL = NormalDist()
_TINY = 1e-300
_TERMS = 2000
_HALVINGS = 200


def normal_cdf(value: float) -> float:
    """Standard normal distribution function."""
    return _NORMAL.cdf(value)


def normal_quantile(probability: float) -> float:
    """Standard normal quantile, `probability` in (0, 1)."""
    return _NORMAL.inv_cdf(probability)


def regularised_beta(value: float, a: float, b: float) -> float:
    """I_x(a, b), the distribution function of Beta(a, b) at x, by Lentz's continued fraction (DLMF 8.17.22)."""
    if value <= 0.0:
        return 0.0
    if value >= 1.0:
        return 1.0
    if value > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast only on this side of the mean
        return 1.0 - regularised_beta(1.0 - value, b, a)
    log_front = a * math.log(value) + b * math.log1p(-value) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / a * _fraction(value, a, b)


def _fraction(value: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * value / (a + 1.0))
    product = d
    for m in range(1, _TERMS):
        even = m * (b - m) * value / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * value / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            product *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return product


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Quantile of Beta(a, b), by bisection."""
    if probability <= 0.0:
        return 0.0
    if probability >= 1.0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if regularised_beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@functools.lru_cache(maxsize=1024)
def student_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t with `df` > 0 degrees of freedom, `probability` in (0, 1)."""
    if probability == 0.5:
        return 0.0
    tail = 2.0 * min(probability, 1.0 - probability)
    x = beta_quantile(tail, df / 2.0, 0.5)  # P(|T| > t) = I_{df/(df+t^2)}(df/2, 1/2)
    size = math.sqrt(df * (1.0 - x) / x) if x > 0.0 else math.inf
    return size if probability > 0.5 else -size


def student_p(value: float, df: float) -> float:
    """P(|T| >= value) of Student's t with `df` > 0 degrees of freedom, `value` from 0 to infinity."""
    if math.isinf(value):
        return 0.0
    return regularised_beta(df / (df + value * value), df / 2.0, 0.5)


def clopper_pearson(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided bounds on a proportion, (1 - confidence) / 2 in each tail (Clopper and Pearson 1934).

    Real-valued counts are allowed: the effective counts of clustered data (Korn and Graubard 1998).
    """
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes <= 0 else beta_quantile(tail, successes, trials - successes + 1.0)
    high = 1.0 if successes >= trials else beta_quantile(1.0 - tail, successes + 1.0, trials - successes)
    return low, high


def negatives_needed(false_positive_rate: float, confidence: float = 0.95) -> int:
    """Fewest non-members that can show a rate: with none of them above the threshold, its upper bound is reached."""
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-false_positive_rate) - 1e-9)
