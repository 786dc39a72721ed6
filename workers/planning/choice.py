"""Which approximate methods are worth trying for a job, in what order, and whether trying them pays. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

USUAL_SHARE = 0.2
"""What an approximate attempt is taken to cost of a training where none was timed."""
_PRIOR = 1.0


@dataclass(frozen=True)
class Past:
    """A method in earlier jobs of the same model: judged attempts, those that passed, median share of a training."""

    runs: int
    passed: int
    share: float


def order_for(has_references: bool) -> tuple[str, ...]:
    """Approximate methods in the order in which `auto` tries them.

    Reference models say for each record what a model without it would say; where there are none every record is brought
    to the level of unseen ones.
    """
    aimed = ("nabla_tau_ref",) if has_references else ()
    return (*aimed, "nabla_tau", "negative_gradient_plus")


def leave_as_classes(labels: ArrayLike, forgotten: NDArray[np.int64]) -> bool:
    """Whether most of the forgotten records, positions among the labels [N], belong to classes of which nothing stays.

    What references say of such records is no aim: each of them was trained on others of the class.
    """
    known = np.asarray(labels)
    return bool(np.mean(~np.isin(known[forgotten], np.delete(known, forgotten))) > 0.5) if len(forgotten) else False


def share_of(method: str, past: Mapping[str, Past]) -> float:
    """What an attempt costs of a training: as earlier ones did, else as usual."""
    known = past.get(method)
    return known.share if known is not None and known.runs else USUAL_SHARE


def chance_of(method: str, past: Mapping[str, Past]) -> float:
    """How likely an attempt passes the gate: (passed + 1) / (runs + 2), Laplace's rule of succession."""
    known = past.get(method, Past(0, 0, USUAL_SHARE))
    return (known.passed + _PRIOR) / (known.runs + 2 * _PRIOR)


def expected_share(methods: Sequence[str], exact: float, past: Mapping[str, Past]) -> float:
    """Expected cost, in trainings, of trying these one after the other and the exact method if none passes."""
    cost = exact
    for method in reversed(methods):
        cost = share_of(method, past) + (1 - chance_of(method, past)) * cost
    return cost


def worth_trying(methods: Sequence[str], exact: float, past: Mapping[str, Past]) -> list[str]:
    """The longest beginning of these that costs less, in expectation, than going exact at once; may be none."""
    for count in range(len(methods), 0, -1):
        tried = methods[:count]
        if expected_share(tried, exact, past) < exact:
            return list(tried)
    return []
