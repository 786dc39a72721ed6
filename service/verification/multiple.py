"""Many tests at once: which records to act on, which to look at, and what further attempts cost.

Checks that all have to pass need none of this: that is an intersection-union test, whose chance of a false pass is
no greater than that of its weakest check. Looking for any suspicious record among many does, and so does trying again
until a candidate passes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def holm(p_values: Array) -> Array:
    """Adjusted p-values, in the order given (Holm 1979): acting on those below alpha errs at all with chance alpha.

    Holds however the tests depend on each other. Raises ValueError for what is no p-value.
    """
    order, ordered = _ordered(p_values)
    steps = np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1))
    return _in_place(np.minimum(steps, 1.0), order)


def benjamini_hochberg(p_values: Array) -> Array:
    """Adjusted p-values, in the order given (Benjamini and Hochberg 1995): the list below a rate holds, on average,
    no greater share of false entries than the rate.

    Holds for tests that are independent or positively dependent. Raises ValueError for what is no p-value.
    """
    order, ordered = _ordered(p_values)
    count = len(ordered)
    steps = ordered * count / np.arange(1, count + 1)
    return _in_place(np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0), order)


def worth_a_look(p_values: Array, rate: float) -> list[int]:
    """Positions whose Benjamini-Hochberg value is at most `rate`, smallest p first: a list to look at, not to act on.

    Raises ValueError for what is no p-value.
    """
    kept = np.flatnonzero(benjamini_hochberg(p_values) <= rate)
    return [int(at) for at in kept[np.argsort(p_values[kept], kind="stable")]]


def split_alpha(alpha: float, attempts: int) -> float:
    """The error rate of each of so many attempts, so that all together err with chance `alpha` at most (Bonferroni).

    Raises ValueError for no attempts at all.
    """
    if attempts < 1:
        raise ValueError(f"{attempts} attempts cannot share an error rate; at least one is needed")
    return alpha / attempts


def _ordered(p_values: Array) -> tuple[NDArray[Any], Array]:
    # Not `(p < 0).any()`: nan is no p-value either, and compares as false with everything.
    if not np.all((p_values >= 0) & (p_values <= 1)):
        raise ValueError("p-values must lie within 0 and 1")
    order = np.argsort(p_values, kind="stable")
    return order, p_values[order]


def _in_place(adjusted: Array, order: NDArray[Any]) -> Array:
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result
