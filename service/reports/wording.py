"""How numbers, times and findings are said: one place, used by every form of the report.

Nothing is ever called erased, guaranteed, certified or compliant: a test bounds what a named attack could have found.
"""

from datetime import UTC, datetime

from service.reports.schema import Report, TargetPart
from service.verification.schema import Check, Evaluation, Interval

GRADES = {
    "A": "exact method, judged by procedure",
    "B": "qualified approximate method, judged by measurement with companion canaries at the narrow margin",
    "C": "approximate method, judged by measurement; not qualified, or without companion canaries at the narrow margin",
}
EXACT_PHRASES = {"retrain": "retrained from scratch without the listed records (exact, by procedure)"}


_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def moment(value: datetime | None) -> str:
    """A time in UTC, to the minute; a dash for none. Month names: no reader can take the day for the month."""
    if value is None:
        return "–"
    value = value.astimezone(UTC)
    return f"{value.day} {_MONTHS[value.month - 1]} {value.year}, {value:%H:%M} UTC"


def number(value: float | None, digits: int = 3) -> str:
    """A figure for a table; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.2e}"


def interval(bounds: Interval | None) -> str:
    """ "0.470 to 0.570"; a dash where there is none."""
    return f"{number(bounds[0])} to {number(bounds[1])}" if bounds else "–"


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None:
        return "–"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def span(days: float) -> str:
    """A number of days as people say it; the sign is left to the caller."""
    total = abs(days) * 86400
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if total >= size:
            return f"{total / size:.1f} {unit}"
    return f"{total:.0f} second{'' if round(total) == 1 else 's'}"


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
        else:
            lines.append(f"No new version of {target.model} was made for this request.")
    left = f"{span(clock.days_left)} before the deadline" if clock.in_time else f"{span(clock.days_left)} late"
    return [*lines, f"Completed on {moment(clock.completed_at)}, {left}."]


def found(report: Report) -> list[str]:
    """The verdict for each model in allowed words."""
    lines = []
    for target in report.targets:
        lines += _finding(target)
    return lines


def _finding(target: TargetPart) -> list[str]:
    if target.publication is None or target.verification is None:
        return [f"{target.model}: nothing was unlearned, so there was nothing to measure."]
    evaluation, version = target.verification, target.publication.version.number
    verdict, grade = evaluation.verdict, target.grade
    head = f"{target.model}: verdict {verdict}" + (
        f", grade {grade} ({GRADES.get(grade, 'see policy')})" if grade else ""
    )
    method = published_method(target)
    if evaluation.basis == "procedure":
        phrase = EXACT_PHRASES.get(
            method, f"made by the exact method {method} without the listed records (by procedure)"
        )
        return [f"{head}.", f"Version {version} was {phrase}.", *_diagnostics(evaluation), *_calibrated(evaluation)]
    return [
        f"{head}.",
        f"The approximate procedure {method} was run from version "
        f"{target.lineage.base_version.number if target.lineage.base_version else '?'}.",
        *_measured(evaluation),
        *_calibrated(evaluation),
        *([f"In short: {evaluation.reason}."] if evaluation.reason else []),
    ]


def _measured(evaluation: Evaluation) -> list[str]:
    """One line for each check that decided, with its interval, margin and sizes."""
    lines = []
    for check in evaluation.checks:
        if check.role != "gate" or check.estimate is None:
            continue
        level = f"{100 * (1 - 2 * check.alpha):g} % " if check.alpha else ""
        bounds = f", {level}interval {interval(check.ci)}" if check.ci else ""
        margin = f", margin {number(check.margin)}" if check.margin is not None else ""
        sizes = f"; n = {number(check.n)}" + (f", m = {number(check.m)}" if check.m else "")
        lines.append(f"{check_name(check)}: {number(check.estimate)}{bounds}{margin}{sizes}: {check.verdict}.")
        if check.id == "membership_auc" and check.smallest_detectable is not None:
            lines.append(
                f"With this attack on these records, an AUC further than {number(check.smallest_detectable)} from one "
                "half would have been noticed with a chance of 80 %; none was found."
            )
    return lines


def _diagnostics(evaluation: Evaluation) -> list[str]:
    check = evaluation.check("membership_auc")
    if check is None or check.estimate is None:
        return ["The membership attack gave no number at this size."]
    return [
        f"As a diagnostic, the membership attack reached an AUC of {number(check.estimate)} on it "
        f"(95 % interval {interval(check.ci95)}; one half is guessing)."
    ]


def _calibrated(evaluation: Evaluation) -> list[str]:
    """The attack with reference models, where it was run: a failure of it is for a person to look at."""
    check = evaluation.check("reference_auc")
    if check is None or check.estimate is None:
        return []
    why = f" ({check.reason})" if check.verdict == "fail" else ""
    reached = f"an AUC of {number(check.estimate)} (95 % interval {interval(check.ci95)}): {check.verdict}{why}"
    return [
        f"As a diagnostic, the membership attack calibrated by {number(check.references)} reference models for each "
        f"record reached {reached}."
    ]


def not_seen(report: Report) -> list[str]:
    """The weightiest limits of each target, for page one; the full lists follow in the sections."""
    lines = [line for target in report.targets for line in target.limits[:4]]
    return list(dict.fromkeys(lines))[:6]


def published_method(target: TargetPart) -> str:
    """The method of the attempt that was published."""
    passed = [attempt.method for attempt in target.attempts if attempt.state == "passed"]
    return passed[-1] if passed else "–"


_CHECK_NAMES = {
    "membership_auc": "Membership attack (AUC)",
    "positive_control": "The same attack on the old version (AUC)",
    "blind_baseline": "Classifier without the model (AUC)",
    "utility": "Utility on held-out records",
    "provenance": "Training record",
    "sanity": "Loads, finite outputs",
    "distinct": "Differs from the old version",
    "tpr_at_fpr": "Found at a false positive rate of 1 %",
    "forgetting_rate_mia": "Forgetting rate (membership)",
    "forgetting_rate_accuracy": "Forgetting rate (accuracy)",
    "memory_retention_rate": "Memory retention rate",
    "reference_auc": "Membership attack with reference models (AUC)",
    "reference_control": "The same on the old version, with reference models",
    "companion_canaries": "Planted records deleted along (AUC)",
    "companion_rate": "Planted records found at a false positive rate of 5 %",
    "canary_control": "Planted records on the old version (AUC)",
    "per_record": "Record by record, with reference models",
    "record_control": "Record by record on the old version",
}


def check_name(check: Check) -> str:
    """The name of a check for people."""
    return _CHECK_NAMES.get(check.id, check.id.replace("_", " ").capitalize())
