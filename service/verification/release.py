"""Whether a person may publish what the gate could not decide: pure, asked before a release and by the verifier again.

An inconclusive verdict says that nothing was shown either way, most often for lack of records. A policy can leave that
to a reviewer (`approval.override`), but neither a failure nor a candidate that is not what it claims to be.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from service.verification.schema import EVALUATION, Check, Evaluation
from service.verification.verdict import DISTINCT, PROVENANCE, SANITY, UTILITY

PUBLISHED_STATES = frozenset({"passed", "released"})
"""States of the attempt that a job publishes."""

OTHER_RULES = "its evaluation was written by another version of the service"


def by_other_rules(document: Mapping[str, Any]) -> bool:
    """Whether an evaluation, as it is stored, was made by rules that this version cannot judge by again.

    A bundle that holds one never verifies, so neither it nor an attempt beside it may come into a report.
    """
    return document.get("schema") != EVALUATION


def why_not_releasable(document: Mapping[str, Any]) -> str | None:
    """What forbids a reviewer to release a candidate with this evaluation, as a clause; None where nothing does.

    `document`: the evaluation as it is stored and printed.
    """
    try:
        evaluation = Evaluation.model_validate(document)
    except ValidationError:
        return OTHER_RULES
    if by_other_rules(document):
        return OTHER_RULES
    if evaluation.verdict != "inconclusive":
        return f"its verdict is {evaluation.verdict}, and only an inconclusive one can be overridden"
    failed = next((check for check in evaluation.checks if _forbids(check)), None)
    if failed is not None:
        return f"the check {failed.id} failed"
    for name in (DISTINCT, SANITY):
        check = evaluation.check(name)
        if check is None or check.verdict != "pass":
            return f"the check {name} did not pass"
    return _provenance(evaluation)


def _forbids(check: Check) -> bool:
    """Every gate that fails, and lost utility also where the held-out set is too small for it to gate."""
    return check.verdict == "fail" and (check.role == "gate" or check.id == UTILITY)


def _provenance(evaluation: Evaluation) -> str | None:
    """An exact method stands or falls with its training record; others need none, but a false one is no small thing."""
    check = evaluation.check(PROVENANCE)
    if evaluation.basis == "procedure" and (check is None or check.verdict != "pass"):
        return f"the check {PROVENANCE} did not pass"
    return f"the check {PROVENANCE} failed" if check is not None and check.verdict == "fail" else None
