"""Page one: what was asked, decided, done and found, and what could not be seen, for somebody with five minutes.

Each function answers the sentences of one block. Everything on page one is said again, with its numbers, behind it.
"""

from service.reports.limits import count
from service.reports.schema import AttemptPart, Report, TargetPart
from service.reports.wording import (
    EXACT_PHRASES,
    GRADES,
    check_name,
    interval,
    moment,
    named,
    number,
    published_method,
    reviewed,
    span,
)
from service.verification.release import PUBLISHED_STATES
from service.verification.schema import Check, Evaluation
from service.verification.verdict import MEMBERSHIP, PER_RECORD, REFERENCE

_LIMITS_OF_EACH, _LIMITS = 4, 6


def asked(report: Report) -> list[str]:
    """What the request said."""
    models = ", ".join(target.model for target in report.targets)
    return [
        f"Request {report.request.id} under {report.request.regulation.upper()}, received "
        f"{moment(report.clock.received_at)}, due {moment(report.clock.due_at)}.",
        f"It asks that the records of one person no longer take part in: {models}. The person appears in this report "
        f"only as the keyed pseudonym that begins with {report.request.pseudonym[:16]}.",
    ]


def decided(report: Report) -> list[str]:
    """The scope decision for each model, and whether the clock was kept."""
    clock = report.clock
    lines = []
    for target in report.targets:
        lines.append(target.scope.decision)
        if target.publication:
            lines.append(
                f"Version {target.publication.version.number} of {target.model} took over serving on "
                f"{moment(target.publication.published_at)}."
            )
            lines += [reviewed(target.publication.review)] if target.publication.review else []
        else:
            lines.append(f"No new version of {target.model} was made for this request.")
    left = f"{span(clock.days_left)} before the deadline" if clock.in_time else f"{span(clock.days_left)} late"
    return [*lines, f"Completed on {moment(clock.completed_at)}, {left}."]


def done(report: Report) -> list[str]:
    """How the new version of each model was made, what was tried before, and what becomes of the old one."""
    lines = []
    for target in report.targets:
        lines += _made(target)
    return lines


def _made(target: TargetPart) -> list[str]:
    publication, evaluation = target.publication, target.verification
    if publication is None or evaluation is None:
        return [f"{target.model}: nothing was changed."]
    method, version = published_method(target), publication.version.number
    if evaluation.basis == "procedure":
        phrase = EXACT_PHRASES.get(
            method, f"made by the exact method {method} without the listed records (by procedure)"
        )
        lines = [f"Version {version} was {phrase}."]
    else:
        base = target.lineage.base_version
        lines = [f"The approximate procedure {method} was run from version {base.number if base else '?'}."]
    lines += _tried([attempt for attempt in target.attempts if attempt.state not in PUBLISHED_STATES])
    retired = publication.retired
    if retired is not None:
        due = f"; its files are due to be destroyed by {moment(retired.destroy_by)}" if retired.destroy_by else ""
        lines.append(f"Version {retired.number} was retired on {moment(retired.retired_at)}{due}.")
    return lines


def _tried(others: list[AttemptPart]) -> list[str]:
    if not others:
        return []
    told = ", ".join(f"{attempt.method} ({attempt.state})" for attempt in others)
    verb = "was" if len(others) == 1 else "were"
    return [f"{count(len(others), 'attempt')} before it {verb} not published: {told}."]


def found(report: Report) -> list[str]:
    """The verdict for each model in allowed words."""
    lines = []
    for target in report.targets:
        lines += _finding(target)
    return lines


def _finding(target: TargetPart) -> list[str]:
    evaluation, grade = target.verification, target.grade
    if target.publication is None or evaluation is None:
        return [f"{target.model}: nothing was unlearned, so there was nothing to measure."]
    graded = f", grade {grade} ({GRADES.get(grade, 'see policy')})" if grade else ", no grade: the gate did not pass it"
    head = f"{target.model}: verdict {evaluation.verdict}{graded}."
    short = [f"In short: {named(evaluation.reason, evaluation)}."] if evaluation.reason else []
    printed = _diagnostics(evaluation) if evaluation.basis == "procedure" else []
    return [head, *short, *_measured(evaluation), *printed, *_calibrated(evaluation)]


def _measured(evaluation: Evaluation) -> list[str]:
    """One line for each check that decided by an interval, with its margin and sizes."""
    lines = []
    for check in evaluation.checks:
        if check.role != "gate" or check.estimate is None or check.ci is None:
            continue
        level = f"{100 * (1 - 2 * check.alpha):g} % " if check.alpha else ""
        margin = f", margin {number(check.margin)}" if check.margin is not None else ""
        sizes = f"; n = {number(check.n)}" + (f", m = {number(check.m)}" if check.m else "")
        told = f"{number(check.estimate)}, {level}interval {interval(check.ci)}{margin}{sizes}: {check.verdict}"
        lines.append(f"{check_name(check)}: {told}.")
        lines += _noticed(check)
    return lines


def _noticed(check: Check) -> list[str]:
    """What the attack on the people's records would have found; that none was there is said of a pass alone."""
    if check.id not in (MEMBERSHIP, PER_RECORD) or check.smallest_detectable is None:
        return []
    size = number(check.smallest_detectable)
    effect = (
        f"an AUC further than {size} from one half"
        if check.id == MEMBERSHIP
        else f"a mean shift of more than {size} standard deviations"
    )
    end = "; none was found" if check.verdict == "pass" else ""
    return [f"With this attack on these records, {effect} would have been noticed with a chance of 80 %{end}."]


def _diagnostics(evaluation: Evaluation) -> list[str]:
    check = evaluation.check(MEMBERSHIP)
    if check is None or check.estimate is None:
        return ["The membership attack gave no number at this size."]
    return [
        f"As a diagnostic, the membership attack reached an AUC of {number(check.estimate)} on it "
        f"(95 % interval {interval(check.ci95)}; one half is guessing)."
    ]


def _calibrated(evaluation: Evaluation) -> list[str]:
    """The attack with reference models, where it ran without deciding: a failure of it is for a person to look at."""
    check = evaluation.check(REFERENCE)
    if check is None or check.estimate is None or check.role == "gate":
        return []
    why = f" ({check.reason})" if check.verdict == "fail" else ""
    reached = f"an AUC of {number(check.estimate)} (95 % interval {interval(check.ci95)}): {check.verdict}{why}"
    return [
        f"As a diagnostic, the membership attack calibrated by {number(check.references)} reference models for each "
        f"record reached {reached}."
    ]


def not_seen(report: Report) -> list[str]:
    """The weightiest limits of each target; the full lists follow in the sections."""
    lines = [line for target in report.targets for line in target.limits[:_LIMITS_OF_EACH]]
    return list(dict.fromkeys(lines))[:_LIMITS]
