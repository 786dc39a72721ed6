"""How numbers, times and findings are said: one place, used by every form of the report.

Allowed and forbidden phrases: research/verification.md section 6.
"""

from datetime import UTC, datetime
from typing import Any

from service.reports.limits import count
from service.reports.schema import Report, TargetPart

GRADES = {
    "A": "exact method, judged by procedure",
    "B": "approximate method, judged by measurement at the narrowest margin",
    "C": "approximate method, judged by measurement at a coarse margin or on few records",
}
EXACT_PHRASES = {"retrain": "retrained from scratch without the listed records (exact, by procedure)"}


_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def moment(value: datetime | None) -> str:
    """A time in UTC, to the minute; a dash for none. Month names: no reader can take the day for the month."""
    if value is None:
        return "–"
    value = value.astimezone(UTC)
    return f"{value.day} {_MONTHS[value.month - 1]} {value.year}, {value:%H:%M} UTC"


def number(value: Any, digits: int = 3) -> str:
    """A figure for a table; a dash for none."""
    if value is None or isinstance(value, bool):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.{digits}f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.2e}"
    return str(value)


def interval(bounds: Any) -> str:
    """"0.470 to 0.570"; a dash where there is none."""
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return "–"
    low, high = bounds
    if low is None and high is None:
        return "–"
    if high is None:
        return f"above {number(low)}"
    return f"below {number(high)}" if low is None else f"{number(low)} to {number(high)}"


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None:
        return "–"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def span(days: float) -> str:
    """A number of days as people say it; the sign is left to the caller."""
    size = abs(days)
    if size >= 1:
        return f"{size:.1f} days"
    if size * 24 >= 1:
        return f"{size * 24:.1f} hours"
    return f"{size * 1440:.1f} minutes" if size * 1440 >= 1 else f"{size * 86400:.0f} seconds"


def asked(report: Report) -> list[str]:
    """What the request said."""
    models = ", ".join(target.model for target in report.targets)
    return [
        f"Request {report.request.id} under {report.request.regulation.upper()}, received "
        f"{moment(report.clock.received_at)}, due {moment(report.clock.due_at)}.",
        f"It asks that the records of one person no longer take part in: {models}. The person appears in this report "
        f"only as the keyed pseudonym {report.request.pseudonym[:16]}….",
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
    verdict, grade = evaluation.get("verdict"), target.grade
    head = f"{target.model}: verdict {verdict}" + (f", grade {grade} ({GRADES.get(grade, 'see policy')})" if grade else "")
    method = published_method(target)
    if evaluation.get("basis") == "procedure":
        phrase = EXACT_PHRASES.get(method, f"made by the exact method {method} without the listed records (by procedure)")
        return [f"{head}.", f"Version {version} was {phrase}.", *_diagnostics(evaluation)]
    return [f"{head}.", f"The approximate procedure {method} was run from version "
            f"{target.lineage.base_version.number if target.lineage.base_version else '?'}.", *_measured(evaluation)]


def _measured(evaluation: dict[str, Any]) -> list[str]:
    lines = []
    for check in evaluation.get("checks", []):
        if check.get("role") != "gate" or check.get("estimate") is None:
            continue
        level = round(100 * (1 - 2 * check["alpha"]), 1) if check.get("alpha") else None
        bounds = f", {level:g} % interval {interval(check.get('ci'))}" if level else ""
        size = f"; n = {number(check.get('n'))}" + (f", m = {number(check['m'])}" if check.get("m") else "")
        margin = f", margin {number(check.get('margin'))}" if check.get("margin") is not None else ""
        lines.append(
            f"{check_name(check)}: {number(check['estimate'])}{bounds}{margin}{size}: {check.get('verdict')}."
        )
        smallest = check.get("smallest_detectable")
        if check.get("id") == "membership_auc" and isinstance(smallest, int | float):
            lines.append(
                f"With this attack on these records, an AUC further than {number(smallest)} from one half would "
                "probably have been noticed; none was found."
            )
    return lines


def _diagnostics(evaluation: dict[str, Any]) -> list[str]:
    for check in evaluation.get("checks", []):
        if check.get("id") == "membership_auc" and check.get("estimate") is not None:
            return [
                f"As a diagnostic, the membership attack reached an AUC of {number(check['estimate'])} on it "
                f"(95 % interval {interval(check.get('ci95'))}; one half is guessing)."
            ]
    return ["The membership attack gave no number at this size."]


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
    "membership_auc_original": "The same attack on the old version (AUC)",
    "blind_baseline": "Model-free classifier (AUC)",
    "utility": "Utility on held-out records",
    "utility_accuracy": "Accuracy on held-out records",
    "utility_perplexity": "Perplexity on held-out records",
    "provenance": "Training record",
    "sanity": "Loads, finite outputs",
}


def check_name(check: dict[str, Any]) -> str:
    """The name of a check for people."""
    name = str(check.get("id"))
    return _CHECK_NAMES.get(name, name.replace("_", " ").capitalize())
