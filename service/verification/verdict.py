"""From numbers to a verdict: pure, so that a third party can run it again from report.json.

Every gating check has three outcomes. An equivalence check passes when the interval of level 1 - 2 alpha lies inside the
margin (two one-sided tests), fails when the 95 % interval lies outside of it on either side, and is inconclusive
otherwise. Gates are joined by AND (an intersection-union test, which needs no correction for several checks).
"""

from collections.abc import Mapping, Sequence

from service.verification.policy import VerificationPolicy
from service.verification.schema import Basis, Check, Evaluation, Outcome, Verdict

MEMBERSHIP, CONTROL, BLIND = "membership_auc", "positive_control", "blind_baseline"
UTILITY, PROVENANCE, SANITY, DISTINCT = "utility", "provenance", "sanity", "distinct"
BLIND_LIMIT = 0.55
"""A classifier without the model that does better than this makes the comparison of the two sets meaningless."""
CHANCE = 0.5

Judged = tuple[Outcome, str | None]


def judge_membership(check: Check, control: Check | None, blind: Check | None, policy: VerificationPolicy) -> Judged:
    """Membership AUC: equivalence to 0.5, both sides, unless the comparison itself says nothing."""
    unusable = _why_unmeasurable(check, policy)
    if unusable:
        return "inconclusive", unusable
    assert check.ci and check.ci95 and check.margin  # noqa: S101 - _why_unmeasurable has seen to it
    if blind is not None and blind.ci95 is not None and blind.ci95[0] > BLIND_LIMIT:
        return "inconclusive", "forgotten and held-out records can be told apart without the model"
    low, high = CHANCE - check.margin, CHANCE + check.margin
    if check.ci95[0] > high:
        return "fail", "forgotten records still look like members"
    if check.ci95[1] < low:
        return "fail", "forgotten records look less like members than people who were never seen: over-unlearned"
    if not (low < check.ci[0] and check.ci[1] < high):
        return "inconclusive", "the interval reaches over the margin"
    if control is None or not _detectable(control, low, high):
        return "inconclusive", "nothing was detectable on the untouched model either, so the attack shows nothing"
    return "pass", None


def _why_unmeasurable(check: Check, policy: VerificationPolicy) -> str | None:
    if check.estimate is None or check.ci is None or check.ci95 is None:
        return check.reason or "not measured"
    if check.margin is None:
        smallest = min(int(size) for size in policy.auc_margin)
        return f"{check.n} forgotten records; a margin exists from {smallest}"
    if check.clusters is None or min(check.clusters) < policy.min_subjects:
        people = min(check.clusters) if check.clusters else 0
        return f"records of {people} people on one side; at least {policy.min_subjects} are needed"
    return None


def _detectable(control: Check, low: float, high: float) -> bool:
    return control.ci95 is not None and (control.ci95[0] > high or control.ci95[1] < low)


def judge_utility(check: Check) -> Judged:
    """Non-inferiority: the candidate may not be worse than the original by the margin (positive = better)."""
    if check.estimate is None or check.ci is None or check.ci95 is None:
        return "info", check.reason or "not measured"
    if check.margin is None:
        return "info", "too few held-out records for a margin"
    if check.ci95[1] < -check.margin:
        return "fail", "the candidate is worse on held-out records beyond the margin"
    if check.ci[0] > -check.margin:
        return "pass", None
    return "inconclusive", "the interval reaches over the margin"


def judge(checks: Sequence[Check], basis: Basis, policy: VerificationPolicy) -> list[Check]:
    """The checks with role, verdict and reason as they follow from the numbers, the basis and the policy."""
    by_id = {check.id: check for check in checks}
    return [_judged(check, by_id, basis, policy) for check in checks]


def _judged(check: Check, by_id: Mapping[str, Check], basis: Basis, policy: VerificationPolicy) -> Check:
    if check.id == MEMBERSHIP:
        verdict, reason = judge_membership(check, by_id.get(CONTROL), by_id.get(BLIND), policy)
        role = "gate" if basis == "measurement" else "diagnostic"
        return check.model_copy(update={"verdict": verdict, "reason": reason, "role": role})
    if check.id == UTILITY:
        verdict, reason = judge_utility(check)
        role = "diagnostic" if verdict == "info" else "gate"
        return check.model_copy(update={"verdict": verdict, "reason": reason, "role": role})
    if check.id == PROVENANCE:
        return check.model_copy(update={"role": "gate" if basis == "procedure" else "diagnostic"})
    return check.model_copy(update={"role": "gate" if check.id in (SANITY, DISTINCT) else "diagnostic"})


def decide(checks: Sequence[Check], basis: Basis) -> tuple[Verdict, str | None]:
    """(verdict, grade). By procedure only a fail blocks: the attacks on an exact method are printed, not obeyed.

    A measured pass is grade C: without companion canaries and a qualified method nothing higher is given
    (docs/architecture.md, "Grades").
    """
    gates = [check for check in checks if check.role == "gate"]
    outcomes = {check.verdict for check in gates}
    needed = {SANITY, DISTINCT, PROVENANCE} if basis == "procedure" else {SANITY, DISTINCT, MEMBERSHIP}
    if not needed <= {check.id for check in gates}:
        return "inconclusive", None
    if "fail" in outcomes:
        return "fail", None
    if basis == "procedure":
        held = all(check.verdict == "pass" for check in gates if check.id != UTILITY)
        return ("pass", "A") if held else ("inconclusive", None)
    if outcomes == {"pass"}:
        return "pass", "C"
    return "inconclusive", None


def disagreements(evaluation: Evaluation, policy: VerificationPolicy) -> list[str]:
    """Where the stated roles, verdicts and grade do not follow from the numbers; empty when they all do."""
    again = judge(evaluation.checks, evaluation.basis, policy)
    found = [
        f"{stated.id} is stated as {stated.verdict} ({stated.role}), its numbers say {derived.verdict} ({derived.role})"
        for stated, derived in zip(evaluation.checks, again, strict=True)
        if (stated.verdict, stated.role) != (derived.verdict, derived.role)
    ]
    verdict, grade = decide(again, evaluation.basis)
    if (verdict, grade) != (evaluation.verdict, evaluation.grade):
        found.append(f"stated {evaluation.verdict} grade {evaluation.grade}, the checks say {verdict} grade {grade}")
    return found
