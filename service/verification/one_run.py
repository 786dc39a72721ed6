"""Lower bounds on the privacy loss epsilon that guesses about canaries prove: they can refute, and never acquit.

A bound above zero shows that the model keeps more of the canaries than a mechanism with that epsilon could. A bound of
zero shows nothing: to pass, the *upper* bound of the attack's accuracy is needed beside it, `Proportion.upper`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from service.verification.proportions import Proportion
from service.verification.quantiles import regularised_beta
from service.verification.statistics import POWER

Array = NDArray[np.float64]

_HALVINGS = 60


def guesses_p_value(
    guesses: int, correct: int, epsilon: float, delta: float = 0.0, canaries: int | None = None
) -> float:
    """P-value of "the training is (epsilon, delta)-private" from `correct` of `guesses` on canaries of a single model.

    Steinke, Nasr and Jagielski (2305.08846), theorem 3.1: each of `canaries` was included by an independent fair coin,
    `guesses` of them were guessed and on the rest the attack abstained. The number of correct guesses is stochastically
    below Binomial(guesses, e^eps / (1 + e^eps)), up to alpha 2 canaries delta with alpha = max_i P[v > B >= v - i] / i.
    Raises ValueError for numbers that are no such counts, or a delta without the number of canaries.
    """
    canaries = guesses if canaries is None and delta == 0 else canaries
    if canaries is None or not 0 <= correct <= guesses <= canaries:
        raise ValueError("correct must be within 0 and guesses, and guesses within the canaries, which delta asks for")
    if epsilon < 0 or not 0 <= delta <= 1:
        raise ValueError("epsilon must not be negative, and delta within 0 and 1")
    chance = 1 / (1 + math.exp(-epsilon))
    tail = 1.0 if correct == 0 else regularised_beta(chance, correct, guesses - correct + 1)
    if delta == 0 or correct == 0 or tail >= 1:
        return tail
    below = np.cumsum(_binomial(guesses, chance)[:correct][::-1])
    steepest = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * steepest)


def _binomial(trials: int, chance: float) -> Array:
    """Probabilities of 0 to `trials` successes."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    at = np.arange(trials + 1)
    ways = log_factorials[-1] - log_factorials - log_factorials[::-1]
    return np.asarray(np.exp(ways + at * math.log(chance) + (trials - at) * math.log1p(-chance)), dtype=np.float64)


def epsilon_from_guesses(
    guesses: int, correct: int, alpha: float = 0.05, delta: float = 0.0, canaries: int | None = None
) -> float:
    """The lower 1 - alpha bound on epsilon; 0 where even 0 is not refuted.

    `guesses` must have been fixed before the outcomes were known: the best bound over several numbers of guesses holds
    only with `alpha` split between them. Raises ValueError as `guesses_p_value` does.
    """

    def refuted(epsilon: float) -> bool:
        return guesses_p_value(guesses, correct, epsilon, delta, canaries) < alpha

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def epsilon_needed(guesses: int, shown: float = 0.0, alpha: float = 0.05, power: float = POWER) -> float | None:
    """The epsilon that randomised response must have for so many guesses to prove more than `shown` with that power.

    What a number of canaries can show, before any is looked at. None where not even all guesses right would prove it.
    """
    least = _correct_needed(guesses, shown, alpha)
    if least is None:
        return None
    low, high = 0.5, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if regularised_beta(middle, least, guesses - least + 1) < power else (low, middle)
    return math.log(low / (1 - low))


def _correct_needed(guesses: int, shown: float, alpha: float) -> int | None:
    if guesses < 1 or guesses_p_value(guesses, guesses, shown) >= alpha:
        return None
    too_few, enough = 0, guesses
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if guesses_p_value(guesses, middle, shown) < alpha:
            enough = middle
        else:
            too_few = middle
    return enough


def epsilon_from_rates(
    false_positives: Proportion, false_negatives: Proportion, alpha: float = 0.05, delta: float = 0.0
) -> float:
    """The lower 1 - alpha bound on epsilon from an attack's two kinds of errors; 0 where they prove nothing.

    Kairouz, Oh and Viswanath (2015): epsilon >= log((1 - delta - FNR) / FPR) and the same with the two exchanged. Both
    rates at their Clopper-Pearson upper bounds of alpha / 2, as the package privacy-estimates does. Trials must be
    independent: one model for each, or canaries of independent coins.
    """
    positive, negative = false_positives.upper(alpha / 2), false_negatives.upper(alpha / 2)
    proven = [
        math.log((1 - delta - missed) / raised)
        for missed, raised in ((negative, positive), (positive, negative))
        if missed < 1 - delta
    ]
    return max(0.0, *proven) if proven else 0.0
