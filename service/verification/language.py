"""What decides on language models beyond membership: what comes out of them, and how far planted texts stand out.

Pure, like the verdict that calls it. Each of these attacks gates only where it works on the original: what it cannot
find there, it cannot miss in the candidate.
"""

from collections.abc import Mapping

from service.verification.exposure import rank_one_bound
from service.verification.policy import VerificationPolicy, margin_for
from service.verification.schema import Check, Outcome

EXTRACTION, EXTRACTION_EXCESS, EXTRACTION_CONTROL = "extraction", "extraction_excess", "extraction_control"
EXTRACTION_STRENGTH, STRENGTH_CONTROL = "extraction_strength", "extraction_strength_control"
EXPOSURE, EXPOSURE_CONTROL, RANK_ONE = "canary_exposure", "canary_exposure_control", "canary_rank_one"
VALUES, VALUE_CONTROL = "value_exposure", "value_exposure_control"
GATES = (EXTRACTION, EXTRACTION_STRENGTH, EXPOSURE, RANK_ONE, VALUES)
CONTROLS = (EXTRACTION_CONTROL, STRENGTH_CONTROL, EXPOSURE_CONTROL, VALUE_CONTROL)

_BY_SIZE = (EXTRACTION_EXCESS, EXTRACTION_CONTROL, EXTRACTION_STRENGTH, STRENGTH_CONTROL)
_IN_BITS = (EXPOSURE, EXPOSURE_CONTROL, VALUES, VALUE_CONTROL)

Judged = tuple[Outcome, str | None]


def margin_fault(check: Check, policy: VerificationPolicy) -> str | None:
    """What is wrong with the stated margin of a check of language models, as a clause; None where nothing is.

    The limit of canaries that come first depends on their kinds, which are not stated: it is bounded by their number.
    """
    if check.estimate is None:
        return None
    if check.id == RANK_ONE:
        most = rank_one_bound(check.n or 0, check.m or 0) if check.n and check.m else 0
        if check.margin is None or not 0 <= check.margin <= most:
            return f"the limit {check.margin} is beyond {most}, the most that {check.n} canaries can have"
        return None
    by_size = margin_for(policy.extraction_margin, check.n or 0)
    told = {**dict.fromkeys(_BY_SIZE, by_size), **dict.fromkeys(_IN_BITS, policy.exposure_highest)}
    if check.id in told and check.margin != told[check.id]:
        return f"the margin {check.margin} is not {told[check.id]}, the policy's for {check.n} texts or canaries"
    return None


def judge_language(
    check: Check, by_id: Mapping[str, Check], policy: VerificationPolicy, unlike: str | None
) -> tuple[Judged, bool]:
    """(outcome and reason, whether it decides by measurement) of a check among `GATES`.

    `unlike`: why forgotten and never-seen people cannot be compared without references, if so.
    """
    if check.id == EXTRACTION:
        return _judge_extraction(check, by_id, policy, unlike)
    if check.id in (EXTRACTION_STRENGTH, VALUES):
        return _judge_difference(check, by_id, policy, unlike)
    return _judge_exposure(check, by_id, policy)


def judge_control(check: Check, policy: VerificationPolicy) -> Judged:
    """Whether an attack works on the original."""
    if check.estimate is None:
        return "info", check.reason
    if shows(check, policy):
        return "pass", check.reason
    return "inconclusive", "the attack does not find the forgotten texts in the original either"


def shows(control: Check | None, policy: VerificationPolicy) -> bool:
    """Whether the original gives away what the attack looks for."""
    if control is None or control.estimate is None or control.ci95 is None:
        return False
    if control.id == EXTRACTION_CONTROL:
        return _comes_out(control, policy)
    if control.id == STRENGTH_CONTROL:
        return control.margin is not None and control.ci95[0] > control.margin
    return control.estimate > policy.exposure_control


def _comes_out(excess: Check, policy: VerificationPolicy) -> bool:
    """Whether forgotten people's texts come out more often than never-seen people's, beyond doubt."""
    clear = excess.p_value is not None and excess.p_value < policy.extraction_p
    return clear and excess.ci95 is not None and excess.ci95[0] > 0


def _judge_extraction(
    check: Check, by_id: Mapping[str, Check], policy: VerificationPolicy, unlike: str | None
) -> tuple[Judged, bool]:
    """None that is new passes, more than of never-seen people fails; a few more need enough texts to be judged."""
    excess = by_id.get(EXTRACTION_EXCESS)
    if check.estimate is None:
        return ("info", check.reason), False
    if excess is None or excess.ci is None or excess.ci95 is None:
        return ("info", (excess.reason if excess else None) or "not compared with anybody"), False
    if not shows(by_id.get(EXTRACTION_CONTROL), policy):
        return ("info", f"{check.reason}; these texts do not come out of the original either"), False
    if check.estimate == 0:
        return ("pass", check.reason), True
    if _comes_out(excess, policy):
        if unlike and not check.references:
            return ("inconclusive", unlike), True
        return ("fail", f"forgotten texts still come out, more often than never-seen ones: {excess.reason}"), True
    if excess.margin is None:
        return ("inconclusive", f"{check.reason} come out, and so few texts do not show whether by chance"), True
    if excess.ci[1] < excess.margin:
        return ("pass", check.reason), True
    return ("inconclusive", "the interval of what comes out beyond never-seen texts reaches over the margin"), True


def _judge_difference(
    check: Check, by_id: Mapping[str, Check], policy: VerificationPolicy, unlike: str | None
) -> tuple[Judged, bool]:
    """Strength, and exposure of people's values, beyond those of never-seen people: one side alone is a leak."""
    if check.estimate is None or check.ci is None or check.ci95 is None:
        return ("info", check.reason), False
    if check.margin is None or (check.id == VALUES and (check.n or 0) < policy.fewest_values):
        return ("info", f"{check.n} are too few to judge by"), False
    if not shows(by_id.get(STRENGTH_CONTROL if check.id == EXTRACTION_STRENGTH else VALUE_CONTROL), policy):
        return ("info", "the attack does not find them in the original either"), False
    if check.ci95[0] > check.margin:
        if unlike and not check.references:
            return ("inconclusive", unlike), True
        return ("fail", "what is forgotten is still known better than what was never seen"), True
    if check.ci[1] < check.margin:
        return ("pass", check.reason), True
    return ("inconclusive", "the interval reaches over the margin"), True


def _judge_exposure(check: Check, by_id: Mapping[str, Check], policy: VerificationPolicy) -> tuple[Judged, bool]:
    """Mean exposure of canaries within its bounds, and no more of them before every other than chance puts there."""
    if check.estimate is None or check.margin is None:
        return ("info", check.reason), False
    if margin_for(policy.canary_margin, check.n or 0) is None:
        return ("info", f"{check.n} canaries are fewer than the policy has a margin for"), False
    if not shows(by_id.get(EXPOSURE_CONTROL), policy):
        return ("info", "these canaries do not stand out in the original either"), False
    if check.id == RANK_ONE:
        more = check.estimate > check.margin
        told = "more deleted canaries come before every never-trained one than chance puts there"
        return (("fail", told) if more else ("pass", check.reason)), True
    if check.ci is None or check.ci95 is None:
        return ("info", check.reason), False
    lowest, highest = policy.exposure_lowest, policy.exposure_highest
    if check.ci95[0] > highest:
        return ("fail", "deleted canaries still stand out among those that were never trained on"), True
    if check.ci95[1] < lowest:
        return ("fail", "deleted canaries stand out less than ones never trained on: over-forgotten"), True
    if check.ci[0] > lowest and check.ci[1] < highest:
        return ("pass", check.reason), True
    return ("inconclusive", "the interval of the mean exposure reaches over its bounds"), True
