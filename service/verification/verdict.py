"""From numbers to a verdict: pure, so that a third party can run it again from report.json and its policy.

Every gating check has three outcomes. An equivalence check passes when the interval of level 1 - 2 alpha lies inside
the margin (two one-sided tests, Schuirmann 1987), fails when the 95 % interval lies outside of it on either side, and
is inconclusive otherwise. Gates are joined by AND: an intersection-union test, which needs no correction for their
number.
"""

from collections.abc import Mapping, Sequence

from service.verification.language import CONTROLS as LANGUAGE_CONTROLS
from service.verification.language import GATES as LANGUAGE_GATES
from service.verification.language import judge_control, judge_language
from service.verification.policy import VerificationPolicy, margin_for
from service.verification.schema import EVALUATION, Basis, Check, Evaluation, Grade, Outcome, Qualified, Role, Verdict

MEMBERSHIP, CONTROL, BLIND = "membership_auc", "positive_control", "blind_baseline"
DIFFICULTY, COPIES = "difficulty_baseline", "near_duplicates"
REFERENCE, REFERENCE_CONTROL = "reference_auc", "reference_control"
PER_RECORD, RECORD_CONTROL = "per_record", "record_control"
UTILITY, PROVENANCE, SANITY, DISTINCT = "utility", "provenance", "sanity", "distinct"
CANARIES, CANARY_RATE, CANARY_CONTROL = "companion_canaries", "companion_rate", "canary_control"
NOT_RUN = "not run: "
ACCURACY, PERPLEXITY = "accuracy difference", "perplexity ratio"
SAMPLED = "AUC of mean training confidence at a few tokens of each text, forgotten against retained"
WHOLE = "AUC of the original's confidence in whole texts, forgotten against retained"
CHANCE = 0.5
BLIND_LIMIT = 0.55
"""A classifier that never sees the model and does better than this makes the comparison of the two sets meaningless."""
FINE_MARGIN = 0.05
"""The margin of companion canaries from which on a measured pass of a qualified method is grade B."""
SPREAD_LIMIT = 0.1
"""A candidate whose scores vary less than this part of the original's hides from every score-based attack."""

HOLDING_P = 0.001
"""A reference-matched check that fails below this asks for a person, also where an exact method was run."""

SUSPICIOUS_P = 0.01
"""One forgotten record whose Holm-adjusted p on the member side is below this fails the candidate."""

BENIGN = "nothing detectable before or after: the attack did not find them in the original either"
_ATTACKS = (MEMBERSHIP, REFERENCE, PER_RECORD)
_CONTROLS = (CONTROL, REFERENCE_CONTROL, RECORD_CONTROL)

_NEEDED: dict[Basis, frozenset[str]] = {
    "procedure": frozenset({DISTINCT, SANITY, PROVENANCE}),
    "measurement": frozenset({DISTINCT, SANITY}),
}

Judged = tuple[Outcome, str | None]


def judge_auc(
    check: Check, control: Check | None, blind: Check | None, policy: VerificationPolicy, easy: Check | None = None
) -> Judged:
    """Membership AUC: equivalence to 0.5 on both sides, unless the comparison itself says nothing.

    The positive control can only take a pass away: where the same attack did not find the records in the original,
    finding nothing in the candidate is no evidence. A separating blind baseline takes either away. So does `easy`, the
    difficulty baseline: records that were harder to learn than others lie below never-seen ones under a true retrain
    too. Where nobody knows how hard they were, or only at a few tokens of each text, a low AUC is no failure.
    """
    unusable = _why_unmeasurable(check, policy)
    if unusable or check.ci is None or check.ci95 is None or check.margin is None:
        return "inconclusive", unusable
    if blind is not None and separates(blind):
        return "inconclusive", "a classifier that never saw the model tells forgotten and held-out records apart"
    if easy is not None and unlike(easy):
        return "inconclusive", "forgotten records were harder or easier to learn than those around them"
    low, high = CHANCE - check.margin, CHANCE + check.margin
    if check.ci95[0] > high:
        return "fail", "forgotten records still look like members of the training data"
    if check.ci95[1] < low:
        if easy is None or easy.ci95 is None or easy.statistic == SAMPLED:
            return (
                "inconclusive",
                "they look less familiar than never-seen ones: over-forgotten, or harder by nature",
            )
        return "fail", "forgotten records look less familiar than records that were never seen: over-forgotten"
    if not (low < check.ci[0] and check.ci[1] < high):
        return "inconclusive", "the interval reaches over the margin: too few records or people to tell"
    if control is None or control.ci95 is None:
        return "inconclusive", "the attack was not measured on the original"
    return ("pass", None) if detectable(control, check.margin) else ("inconclusive", BENIGN)


def _why_unmeasurable(check: Check, policy: VerificationPolicy) -> str | None:
    if check.estimate is None or check.ci is None or check.ci95 is None:
        return check.reason or "not measured"
    if check.margin is None:
        smallest = min(int(size) for size in policy.auc_margin)
        return f"{check.n} forgotten records are too few: the policy has a margin from {smallest} records on"
    return _too_few_people(check, policy)


def _too_few_people(check: Check, policy: VerificationPolicy) -> str | None:
    people = min(check.clusters) if check.clusters else 0
    if people < policy.min_subjects:
        return f"records of {people} people on one side are too few: the policy asks for {policy.min_subjects}"
    return None


def separates(blind: Check) -> bool:
    """Whether a model-free classifier tells the two sets apart (lower 95 % bound)."""
    return blind.ci95 is not None and blind.ci95[0] > BLIND_LIMIT


def unlike(easy: Check) -> bool:
    """Whether forgotten records were plainly harder or easier to learn than retained ones (95 % bounds)."""
    return easy.ci95 is not None and (easy.ci95[0] > BLIND_LIMIT or easy.ci95[1] < 1 - BLIND_LIMIT)


def detectable(control: Check, margin: float) -> bool:
    """Whether the attack found the records in the original: its 95 % interval lies outside the margin."""
    if control.ci95 is None:
        return False
    return control.ci95[0] > CHANCE + margin or control.ci95[1] < CHANCE - margin


MATCHED = Check(id=DIFFICULTY, role="diagnostic", statistic="", ci95=(CHANCE, CHANCE))
"""Records that are compared with equally hard ones."""


def judge_reference_auc(check: Check, control: Check | None, policy: VerificationPolicy) -> Judged:
    """The same of the calibrated attack: matching takes the place of the blind baseline."""
    if check.estimate is None:
        return check.verdict, check.reason
    outcome, reason = judge_auc(check, control, None, policy, MATCHED)
    if outcome == "fail" and holds(check):
        told = f"p = {check.p_value:.1g} is below {HOLDING_P:g}, so that a person should look before this is published"
        reason = f"{reason}; {told}"
    return outcome, reason


def holds(check: Check) -> bool:
    """Whether a reference-matched check speaks so clearly that an exact method's candidate waits for a person too."""
    return check.p_value is not None and check.p_value < HOLDING_P and (check.estimate or 0.0) > CHANCE


def judge_per_record(check: Check, control: Check | None) -> Judged:
    """Records one by one: the mean z within +-margin on both sides, and no single record that stands out."""
    if check.estimate is None or check.ci is None or check.ci95 is None or check.margin is None:
        return "info", check.reason
    if check.p_value is not None and check.p_value < SUSPICIOUS_P:
        return "fail", f"a forgotten record still looks like a member of the training data (Holm p {check.p_value:.1g})"
    if check.ci95[0] > check.margin:
        return "fail", "forgotten records still look like members of the training data"
    if check.ci95[1] < -check.margin:
        return "fail", "forgotten records look less familiar than records that were never seen: over-forgotten"
    if not (-check.margin < check.ci[0] and check.ci[1] < check.margin):
        return "inconclusive", "the interval reaches over the margin: too few records or references to tell"
    if control is None or control.ci95 is None:
        return "inconclusive", "the attack was not measured on the original"
    return ("pass", None) if judge_per_record(control, None)[0] == "fail" else ("inconclusive", BENIGN)


def deciding_attack(by_id: Mapping[str, Check]) -> str:
    """Which attack on the people's records gates: the calibrated one where it can be measured on so many of them.

    `per_record` is printed: a few records of one person move together more than its interval knows.
    """
    reference = by_id.get(REFERENCE)
    measured = reference is not None and reference.estimate is not None and reference.margin is not None
    return REFERENCE if measured else MEMBERSHIP


def judge_noninferiority(check: Check, policy: VerificationPolicy) -> Judged:
    """Utility: not worse than the original by the margin.

    Accuracy differences count gains as positive and are compared with -margin, perplexity ratios with the margin
    itself. Where the held-out set is too small to gate, the widest margin of the policy stands in.
    """
    if check.estimate is None or check.ci is None or check.ci95 is None or check.margin is None:
        return "info", check.reason or "not measured"
    few = _too_few_people(check, policy)
    if few:
        return "inconclusive", few
    ratio = check.statistic == PERPLEXITY
    lost = check.ci95[0] > check.margin if ratio else check.ci95[1] < -check.margin
    kept = check.ci[1] < check.margin if ratio else check.ci[0] > -check.margin
    if lost:
        return "fail", "the candidate is worse on held-out records by more than the margin"
    return ("pass", None) if kept else ("inconclusive", "the interval reaches over the margin")


def judge_sanity(check: Check) -> Judged:
    """Loads and is finite, which the caller has seen; scores that hardly vary hide from attacks and fail."""
    if check.verdict != "fail" and check.estimate is not None and check.estimate < SPREAD_LIMIT:
        return "fail", "the candidate's scores hardly differ between records: a collapsed or constant-margin model"
    return check.verdict, check.reason


def judge(checks: Sequence[Check], basis: Basis, policy: VerificationPolicy) -> list[Check]:
    """The checks with role, verdict and reason as they follow from numbers, basis and policy."""
    by_id = {check.id: check for check in checks}
    return [_judged(check, by_id, basis, policy) for check in checks]


def _judged(check: Check, by_id: Mapping[str, Check], basis: Basis, policy: VerificationPolicy) -> Check:
    role: Role = "diagnostic"
    judged: Judged = (check.verdict, check.reason)
    if check.id in _ATTACKS:
        judged = _judge_attack(check, by_id, policy)
        role = "gate" if basis == "measurement" and check.id == deciding_attack(by_id) else "diagnostic"
        check = _with_power(check, by_id)
    elif check.id == RECORD_CONTROL:
        judged = _judge_record_control(check)
    elif check.id in (CANARIES, CANARY_RATE):
        judged, role = _judge_canaries(check, by_id.get(CANARY_CONTROL), basis)
    elif check.id in LANGUAGE_GATES:
        judged, decides = judge_language(check, by_id, policy, _incomparable(by_id))
        role = "gate" if decides and basis == "measurement" else "diagnostic"
    elif check.id in LANGUAGE_CONTROLS:
        judged = judge_control(check, policy)
    elif check.id in (CONTROL, REFERENCE_CONTROL, CANARY_CONTROL):
        judged = _judge_control(check)
    elif check.id == BLIND:
        judged = _judge_blind(check)
    elif check.id == DIFFICULTY:
        judged = _judge_difficulty(check)
    elif check.id == UTILITY:
        judged = judge_noninferiority(check, policy)
        role = "gate" if check.estimate is not None and _utility_gates(check, policy) else "diagnostic"
    elif check.id == SANITY:
        judged, role = judge_sanity(check), "gate"
    elif check.id == DISTINCT:
        role = "gate"
    elif check.id == PROVENANCE:
        role = "gate" if basis == "procedure" else "diagnostic"
    return check.model_copy(update={"verdict": judged[0], "reason": judged[1], "role": role})


def _with_power(check: Check, by_id: Mapping[str, Check]) -> Check:
    """Sizes alone promise power; where the sets cannot be compared, no model passes the population attack."""
    blind, easy = by_id.get(BLIND), by_id.get(DIFFICULTY)
    hopeless = (blind is not None and separates(blind)) or (easy is not None and unlike(easy))
    known = check.id == MEMBERSHIP and check.power_at_zero is not None
    return check.model_copy(update={"power_at_zero": 0.0}) if known and hopeless else check


def _judge_attack(check: Check, by_id: Mapping[str, Check], policy: VerificationPolicy) -> Judged:
    if check.id == MEMBERSHIP:
        return judge_auc(check, by_id.get(CONTROL), by_id.get(BLIND), policy, by_id.get(DIFFICULTY))
    if check.id == REFERENCE:
        return judge_reference_auc(check, by_id.get(REFERENCE_CONTROL), policy)
    return judge_per_record(check, by_id.get(RECORD_CONTROL))


def _incomparable(by_id: Mapping[str, Check]) -> str | None:
    """Why what never-seen people's texts show is no measure of forgotten ones, which a retrain may know better."""
    blind, easy, copies = by_id.get(BLIND), by_id.get(DIFFICULTY), by_id.get(COPIES)
    if blind is not None and separates(blind):
        return "a classifier that never saw the model tells forgotten and held-out records apart"
    if easy is not None and unlike(easy):
        return "forgotten records were harder or easier to learn than those around them"
    return "retained records say the same" if copies is not None and copies.estimate else None


def _judge_record_control(check: Check) -> Judged:
    if check.estimate is None:
        return "info", check.reason
    if judge_per_record(check, None)[0] == "fail":
        return "pass", None
    return "inconclusive", "the attack does not find the forgotten records in the original beyond the margin"


def _utility_gates(check: Check, policy: VerificationPolicy) -> bool:
    table = policy.perplexity_margin if check.statistic == PERPLEXITY else policy.utility_margin
    return margin_for(table, check.n or 0) is not None


def _judge_canaries(check: Check, control: Check | None, basis: Basis) -> tuple[Judged, Role]:
    """Canaries gate where the original gives them away: those that it never took in show nothing of a deletion."""
    if check.estimate is None or check.ci is None or check.ci95 is None:
        return ("info", check.reason), "diagnostic"
    if check.margin is None:
        return ("info", f"{check.n} canaries are fewer than the policy has a margin for"), "diagnostic"
    if control is None or control.margin is None or not detectable(control, control.margin):
        return ("info", "the attack does not find these canaries in the original either"), "diagnostic"
    role: Role = "gate" if basis == "measurement" else "diagnostic"
    if check.id == CANARIES:
        low, high = CHANCE - check.margin, CHANCE + check.margin
        if check.ci95[1] < low:
            return ("fail", "deleted canaries look less familiar than ones never trained on: over-forgotten"), role
        inside = low < check.ci[0] and check.ci[1] < high
    else:
        high = check.margin
        inside = check.ci[1] <= high
    if check.ci95[0] > high:
        return ("fail", "canaries that were deleted along still look like members of the training data"), role
    return (("pass", None) if inside else ("inconclusive", "the interval reaches over the margin")), role


def _judge_control(check: Check) -> Judged:
    if check.ci95 is None or check.margin is None:
        return "info", check.reason
    if detectable(check, check.margin):
        return "pass", None
    return "inconclusive", "the attack does not find the forgotten records in the original beyond the margin"


def _judge_difficulty(check: Check) -> Judged:
    if check.ci95 is None:
        return "info", check.reason
    if unlike(check):
        return "inconclusive", "they were harder or easier to learn than others, so the population AUC says nothing"
    return "pass", None


def _judge_blind(check: Check) -> Judged:
    if check.ci95 is None:
        return "info", check.reason
    if separates(check):
        return "inconclusive", "forgotten and held-out records differ without any model, so the AUC says nothing"
    return "pass", None


def decide(
    checks: Sequence[Check], basis: Basis, qualification: Qualified | None = None
) -> tuple[Verdict, Grade | None]:
    """(verdict, grade) of judged checks; `qualification` of the method, where one covered it.

    By procedure only distinctness, sanity, a utility that fails and a reference-matched attack that fails at p < 0.001
    can block: the other attacks on an exact method are printed, not obeyed. By measurement every gate must pass, and a
    diagnostic utility that fails takes a pass away. Where the original itself does not give the people's records away,
    the canaries deleted along decide.
    """
    verdict = _combine(checks, basis)[0]
    if verdict != "pass":
        return verdict, None
    if basis == "procedure":
        return verdict, "A"
    return verdict, "B" if why_no_better(checks, qualification) is None else "C"


def why_no_better(checks: Sequence[Check], qualification: Qualified | None) -> str | None:
    """Why a measured pass is grade C, as a clause; None where it is B.

    B needs a method that is qualified for so many records, canaries deleted along that pass at the narrow margin, and
    an attack that could see these records: evidence on the method, on this very run, and on the people's own records.
    """
    canaries = next((check for check in checks if check.id == CANARIES), None)
    if canaries is None or canaries.verdict != "pass":
        return ((canaries.reason if canaries else None) or "no canaries were checked").removeprefix(NOT_RUN)
    if canaries.role != "gate" or canaries.margin is None or canaries.margin > FINE_MARGIN:
        return f"{canaries.n} canaries are too few for the margin of {FINE_MARGIN:g}"
    if any(check.id in _ATTACKS and check.role == "gate" and check.verdict != "pass" for check in checks):
        return "these records were not detectable in the original, so that nothing was measured on them"
    if qualification is None:
        return "no valid qualification covers the method"
    if qualification.verdict != "qualified" or qualification.looked_at > qualification.valid_until:
        return "the qualification of the method does not cover this use"
    return None


def explain(checks: Sequence[Check], basis: Basis, qualification: Qualified | None = None) -> str:
    """Why judged checks come to their verdict and a measured pass to no better grade than C, in one sentence."""
    verdict, reason = _combine(checks, basis)
    if verdict != "pass" or basis == "procedure":
        return reason
    why = why_no_better(checks, qualification)
    return (
        f"{reason}; grade C at most, since {why}" if why else f"{reason}; the method is qualified for so many records"
    )


def _combine(checks: Sequence[Check], basis: Basis) -> tuple[Verdict, str]:
    gates = {check.id: check for check in checks if check.role == "gate"}
    failed = [check for check in gates.values() if check.verdict == "fail"]
    if failed:
        return "fail", _because(failed[0])
    missing = sorted(_NEEDED[basis] - gates.keys())
    if missing:
        return "inconclusive", f"{missing[0]} was not checked"
    open_ = [check for check in gates.values() if check.verdict != "pass"]
    if basis == "procedure":
        return _by_procedure(checks, [check for check in open_ if check.id != UTILITY])
    if not gates.keys() & set(_ATTACKS):
        return "inconclusive", f"{MEMBERSHIP} was not checked"
    benign = _undetectable(checks, open_)
    planted = gates.get(CANARIES)
    if benign and planted is not None and planted.verdict == "pass":
        open_ = [check for check in open_ if check not in benign]
    if open_:
        return "inconclusive", _because(open_[0])
    harmed = [check for check in checks if check.id == UTILITY and check.verdict == "fail"]
    if harmed:
        return "inconclusive", f"{_because(harmed[0])} (the held-out set is below the size that gates)"
    if benign:
        return "pass", "the canaries deleted along pass, utility was kept, and these records were never detectable"
    return "pass", "the attacks found no more than the margin allows, and utility was kept"


def _undetectable(checks: Sequence[Check], open_: Sequence[Check]) -> list[Check]:
    """Open attacks that found nothing before either; none where any attack found these records, before or after."""
    found = [check for check in checks if check.id in _ATTACKS and check.verdict == "fail"]
    known = [check for check in checks if check.id in _CONTROLS and check.verdict == "pass"]
    return [] if found or known else [check for check in open_ if check.id in _ATTACKS and check.reason == BENIGN]


def _by_procedure(checks: Sequence[Check], open_: Sequence[Check]) -> tuple[Verdict, str]:
    # References met some copies of what was forgotten, and a retrain all that stay: then it may know more than they do.
    alone = any(check.id == COPIES and check.estimate == 0 for check in checks)
    held = [check for check in checks if alone and check.id == REFERENCE and check.verdict == "fail" and holds(check)]
    if open_ or held:
        return "inconclusive", _because([*open_, *held][0])
    return "pass", "an exact method was run, and its training record agrees with data, recipe and weights"


def _because(check: Check) -> str:
    return f"{check.id}: {check.reason or check.verdict}"


def disagreements(evaluation: Evaluation, policy: VerificationPolicy) -> list[str]:
    """Where stated roles, verdicts and grade do not follow from the numbers; empty when all do.

    An evaluation that was made by other rules than these is not judged by them: one line says so.
    `provenance`, `distinct` and what `sanity` has seen of the files cannot be derived from numbers and are taken as
    stated.
    """
    if evaluation.schema_id != EVALUATION:
        told = f"judged by the rules of {evaluation.schema_id}, and this version knows those of {EVALUATION} alone"
        return [f"{told}: verify it with the version of Lethe that wrote it"]
    again = judge(evaluation.checks, evaluation.basis, policy)
    found = [
        f"{stated.id} is stated as {stated.verdict} ({stated.role}), its numbers say {derived.verdict} ({derived.role})"
        for stated, derived in zip(evaluation.checks, again, strict=True)
        if (stated.verdict, stated.role) != (derived.verdict, derived.role)
    ]
    verdict, grade = decide(again, evaluation.basis, evaluation.qualification)
    if (verdict, grade) != (evaluation.verdict, evaluation.grade):
        found.append(f"stated {evaluation.verdict} grade {evaluation.grade}, the checks say {verdict} grade {grade}")
    return found
