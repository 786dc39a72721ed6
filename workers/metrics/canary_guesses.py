"""One guess for each deleted canary: which of two is it, itself or one of its kind that no training ever saw?

The attack names the one with the higher membership score. Which of the two was planted was decided by a coin, and the
two were put together without looking at any score (workers/lineage/opposites.py). So where the model holds no trace
of the deleted one, a guess is right with chance 1/2, whatever the other guesses were: what the wager over publications
bets on (service/verification/sequential.py; randomised controls: Zhang et al., arXiv 2409.19798). Above 1/2: a leak.
"""

import numpy as np

from service.verification.statistics import Array


def canary_guesses(deleted: Array, opposite: Array) -> Array:
    """Outcomes [c] from membership scores of deleted canaries [c] and of their opposites [c]: 1 right, 0 wrong, 1/2 for
    a tie. Raises ValueError for different numbers of them.
    """
    if deleted.shape != opposite.shape:
        raise ValueError("each deleted canary has one opposite")
    return np.where(deleted == opposite, 0.5, (deleted > opposite).astype(np.float64))
