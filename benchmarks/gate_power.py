"""Could a model without any leak pass the whole gate? Computed from sizes, references and the original alone."""

from collections.abc import Sequence

from service.verification.equivalence import gate_power
from service.verification.policy import VerificationPolicy
from service.verification.schema import Check
from service.verification.statistics import AucDesign
from service.verification.verdict import (
    BLIND,
    CONTROL,
    DIFFICULTY,
    MEMBERSHIP,
    REFERENCE,
    REFERENCE_CONTROL,
    UTILITY,
    deciding_attack,
)

WANTED = 0.9


def leak_free_power(checks: Sequence[Check], design: AucDesign | None, policy: VerificationPolicy) -> float:
    """Probability, at least, that a model without any leak and as useful as the original passes the whole gate.

    From judged checks of which only what is known beforehand is read: sizes, margins, and whether the original gives
    the records away (without that nothing passes). `design` is the calibrated attack's.
    """
    by_id = {check.id: check for check in checks}
    attack = by_id[deciding_attack(by_id)]
    if attack.margin is None or min(attack.clusters or (0,)) < policy.min_subjects:
        return 0.0
    if attack.id == REFERENCE:
        usable = by_id[REFERENCE_CONTROL].verdict == "pass"
        power = design.power_at_zero(attack.margin, attack.alpha or policy.alpha) if design else 0.0
    else:
        usable = by_id[CONTROL].verdict == "pass" and all(
            by_id[name].verdict != "inconclusive" for name in (BLIND, DIFFICULTY)
        )
        power = by_id[MEMBERSHIP].power_at_zero or 0.0
    utility = by_id[UTILITY]
    powers = [power, *([utility.power_at_zero or 0.0] if utility.role == "gate" else [])]
    return gate_power(powers).at_least if usable else 0.0
