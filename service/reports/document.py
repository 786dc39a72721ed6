"""The report as a document: titles, sentences, tables and figures in order.

The HTML page and the PDF are two renderings of this one value, so that they say the same.
"""

from typing import Any

from service.reports import decision, sections, wording
from service.reports.schema import Report, TargetPart


def document_of(report: Report) -> dict[str, Any]:
    """Everything that a reader sees, ready to be laid out; page one is `verdicts` and `decision`. Plain JSON values."""
    several = len(report.targets) > 1
    models = [part for target in report.targets for part in sections.of_target(target, several)]
    return {
        "title": "Deletion report",
        "subtitle": f"Request {report.request.id}",
        "generated": wording.moment(report.generated_at),
        "date": [report.generated_at.year, report.generated_at.month, report.generated_at.day],
        "generator": report.generator,
        "verdicts": [_headline(target) for target in report.targets],
        "decision": [
            {"title": "What was asked", "lines": decision.asked(report)},
            {"title": "What was decided", "lines": decision.decided(report)},
            {"title": "What was done", "lines": decision.done(report)},
            {"title": "What was found", "lines": decision.found(report)},
            {"title": "What this evidence does not show", "lines": decision.not_seen(report)},
        ],
        "sections": [sections.clock(report), *models, sections.log(report), sections.how_to_check(report)],
    }


def _decision(target: TargetPart) -> str:
    released = any(attempt.state == "released" for attempt in target.attempts)
    return "released by a reviewer" if released else "published"


def _headline(target: TargetPart) -> dict[str, Any]:
    """The strip on page one: model, what happened, verdict, grade, version."""
    verdict = target.verification.verdict if target.verification else None
    outcome = {
        "published": f"new version {_decision(target)}",
        "no_records": "no records found",
        "already_deleted": "dealt with earlier",
    }
    return {
        "model": target.model,
        "outcome": outcome[target.outcome],
        "verdict": verdict,
        "grade": target.grade,
        "method": wording.published_method(target) if target.publication else None,
        "version": target.publication.version.number if target.publication else None,
    }
