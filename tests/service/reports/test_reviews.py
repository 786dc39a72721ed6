"""Reports of versions that a reviewer released or approved: what page one says, and every way to tell it otherwise."""

import json
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from service.reports import service, verify
from service.reports.builder import build_report
from service.reports.bundle import build_bundle
from service.reports.document import document_of
from service.reports.facts import AttemptFacts, JobEvidence
from service.reports.schema import Report, ReviewPart
from service.reports.signing import load_or_create_key
from service.settings import get_settings
from service.verification.policy import Policy
from service.verification.release import why_not_releasable
from service.verification.schema import Evaluation
from tests.service.reports import samples

Edit = Callable[[dict[str, Any]], None]

REASON = "No more records\nwill come."
KEY = "key_01kbexample0000000000000009"
AT = samples.NOW - timedelta(minutes=5)
UNDECIDED: dict[str, Any] = {"ci": (0.3, 0.7), "ci95": (0.29, 0.71)}


def _review(kind: str) -> ReviewPart:
    reason = REASON if kind == "released" else None
    digest = sha256(REASON.encode()).hexdigest() if reason else None
    return ReviewPart.model_validate(
        {"kind": kind, "attempt": 2, "at": AT, "key_id": KEY, "reason": reason, "reason_sha256": digest}
    )


def reviewed(kind: str | None, approval: dict[str, bool]) -> JobEvidence:
    """A job whose second attempt was released (and is inconclusive) or approved (and passed), under such a policy."""
    policy = Policy.model_validate({"approval": approval})
    told = samples.evaluation(**UNDECIDED) if kind == "released" else samples.evaluation()

    def under(attempt: AttemptFacts, evaluation: Evaluation | None, state: str) -> AttemptFacts:
        assert evaluation is not None
        fixed = evaluation.model_copy(update={"policy_digest": policy.digest()})
        return attempt.model_copy(update={"verification": fixed, "state": state})

    first, second = samples.attempts()
    attempts = [
        under(first, first.verification, "failed"),
        under(second, told, "released" if kind == "released" else "passed"),
    ]
    changes: dict[str, Any] = {"policy": policy.model_dump(mode="json"), "policy_digest": policy.digest()}
    return samples.evidence(**changes, attempts=attempts, review=_review(kind) if kind else None)


def report_of(job: JobEvidence) -> Report:
    key = service_key_id()
    return build_report(
        samples.request(), [(samples.target(), job)], samples.events(job), [], samples.NOW, "Lethe 0", key
    )


def service_key_id() -> str:
    from service.reports.signing import key_id

    return key_id(load_or_create_key(get_settings().home).public_key())


def bundle_of(report: dict[str, Any]) -> bytes:
    return build_bundle(json.dumps(report).encode(), b"%PDF-", load_or_create_key(get_settings().home))


def faults(report: dict[str, Any]) -> list[str]:
    result = verify.verify_bundle(bundle_of(report))
    return [f"{finding.check}: {finding.detail}" for finding in result.findings if not finding.ok]


def plain(job: JobEvidence) -> dict[str, Any]:
    """report.json as a dictionary."""
    report: dict[str, Any] = json.loads(report_of(job).model_dump_json(by_alias=True))
    return report


def targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The target, and its copy at the top level."""
    return [report["targets"][0], report]


RELEASED = ("released", {"override": True})
APPROVED = ("approved", {"publication": True})
BOTH = ("released", {"override": True, "publication": True})


@pytest.mark.parametrize(("kind", "approval"), [RELEASED, APPROVED, BOTH])
def test_a_reviewed_report_verifies(home: Path, kind: str, approval: dict[str, bool]) -> None:
    report = plain(reviewed(kind, approval))
    assert faults(report) == []
    assert report["publication"]["review"]["kind"] == kind


def test_a_release_is_on_page_one_and_nothing_there_claims_a_pass(home: Path) -> None:
    report = report_of(reviewed(*RELEASED))
    assert report.verification is not None
    assert (report.verification.verdict, report.grade) == ("inconclusive", None)
    document = document_of(report)
    (strip,) = document["verdicts"]
    assert (strip["outcome"], strip["verdict"], strip["grade"]) == (
        "new version released by a reviewer",
        "inconclusive",
        None,
    )
    lines = [line for part in document["decision"] for line in part["lines"]]
    (told,) = [line for line in lines if line.startswith("Released by a reviewer")]
    assert told == (
        f"Released by a reviewer on 21 Nov 2026, 09:25 UTC under the key {KEY}, although the gate was inconclusive, "
        "for the reason: “No more records will come.”"
    )
    assert "digits: verdict inconclusive, no grade: the gate did not pass it." in lines
    assert not [line for line in lines if "verdict pass" in line]
    assert "1 attempt before it was not published: negative_gradient_plus (failed)." in lines
    assert report.limits[0].startswith("The gate did not pass this version")
    assert ["Digest of the reason", {"mono": sha256(REASON.encode()).hexdigest()}] in rows(document)


def rows(document: dict[str, Any]) -> list[Any]:
    blocks = [block for section in document["sections"] for block in section["blocks"]]
    return [row for block in blocks if block["kind"] == "facts" for row in block["rows"]]


def test_an_approval_is_told_and_no_limit(home: Path) -> None:
    report = report_of(reviewed(*APPROVED))
    lines = [line for part in document_of(report)["decision"] for line in part["lines"]]
    assert f"A reviewer approved the publication on 21 Nov 2026, 09:25 UTC under the key {KEY}." in lines
    assert not [line for line in report.limits if "reviewer" in line]


def test_a_release_is_in_pdf_html_and_bundle(home: Path) -> None:
    job = reviewed(*RELEASED)
    service.write_job_evidence(job, None)
    service.write_request_report(samples.request(), [samples.target()], samples.events(job), samples.NOW)
    assert "Released by a reviewer on 21 Nov 2026" in service.read_form(samples.REQUEST, "html").decode()
    assert service.read_form(samples.REQUEST, "pdf").startswith(b"%PDF")
    result = verify.verify_bundle(service.read_form(samples.REQUEST, "zip"))
    assert result.ok, result.findings
    assert "review" in [finding.check for finding in result.findings]


def _reason(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["publication"]["review"]["reason"] = "Another reason altogether."


def _reason_and_digest(report: dict[str, Any]) -> None:
    _reason(report)
    for part in targets(report):
        review = part["publication"]["review"]
        review["reason_sha256"] = sha256(review["reason"].encode()).hexdigest()


def _key(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["publication"]["review"]["key_id"] = "key_other"


def _time(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["publication"]["review"]["at"] = "2026-11-21T09:26:00Z"


def _attempt(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["publication"]["review"]["attempt"] = 1


def _kind(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["publication"]["review"] |= {"kind": "approved", "reason": None, "reason_sha256": None}


def _hidden(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["publication"]["review"] = None


def _passed(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["attempts"][1]["state"] = "passed"


def _claims_a_pass(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["attempts"][1] |= {"state": "passed", "verdict": "pass"}
        part["verification"] |= {"verdict": "pass", "grade": "C"}
        part |= {"grade": "C"}


def _grade(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["grade"] = "C"


def _failed_gate(report: dict[str, Any]) -> None:
    for part in targets(report):
        check = next(entry for entry in part["verification"]["checks"] if entry["id"] == "utility")
        check |= {"ci": [-0.09, -0.06], "ci95": [-0.1, -0.05], "verdict": "fail"}


def _policy(report: dict[str, Any]) -> None:
    for part in targets(report):
        part["policy"]["document"]["approval"]["override"] = False


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_reason, "review: digits: the reason is not the one whose digest is in the log"),
        (_reason_and_digest, "review: digits: the reason is not the one whose digest is in the log"),
        (_key, "review: digits: the log names another reviewer or another time"),
        (_time, "review: digits: the log names another reviewer or another time"),
        (_attempt, "review: digits: the review is of another attempt"),
        (_kind, "review: digits: the log does not hold that attempt 2 was approved"),
        (_hidden, "review: digits: the report names no reviewer"),
        (_passed, "verdict: digits: a version was published with another verdict than pass"),
        (_claims_a_pass, "log: digits: attempt 2: the log does not hold its verdict pass"),
        (_claims_a_pass, "verdict: digits: stated pass grade C, the checks say inconclusive"),
        (_grade, "verdict: digits: a released version is inconclusive and has no grade"),
        (_failed_gate, "verdict: digits: nobody could release this version: the check utility failed"),
        (_policy, "review: digits: the policy does not allow a release"),
        (_policy, "policy: digits: the policy's digest is not that of the policy"),
    ],
)
def test_a_release_cannot_be_told_otherwise(home: Path, edit: Edit, words: str) -> None:
    report = plain(reviewed(*RELEASED))
    edit(report)
    found = faults(report)
    assert any(line.startswith(words) for line in found), found


def _unlogged(kind: str, approval: dict[str, bool]) -> dict[str, Any]:
    """The whole report is sound, but the log knows of no review."""
    job = reviewed(kind, approval)
    report = plain(job)
    report["log_proof"]["events"] = samples.events(job.model_copy(update={"review": None}))
    return report


@pytest.mark.parametrize(("kind", "approval"), [RELEASED, APPROVED])
def test_a_review_that_was_never_logged_is_noticed(home: Path, kind: str, approval: dict[str, bool]) -> None:
    assert faults(_unlogged(kind, approval)) == [
        f"review: digits: the log does not hold that attempt 2 was {kind}",
    ]


def test_a_review_after_the_publication_is_noticed(home: Path) -> None:
    job = reviewed(*APPROVED)
    report = plain(job)
    entries = [(event["kind"], event["ref"], event["data"]) for event in samples.events(job)]
    entries[-2], entries[-1] = entries[-1], entries[-2]
    report["log_proof"]["events"] = samples.sealed(entries, job.review)
    assert faults(report) == ["review: digits: the log does not hold the review between verdict and publication"]


def test_a_version_nobody_approved_is_noticed_where_the_policy_asks_for_it(home: Path) -> None:
    report = plain(reviewed(None, {"publication": True}))
    assert faults(report) == ["review: digits: the report names no reviewer, and the policy asks for one"]
    assert faults(plain(reviewed(None, {"override": True}))) == []


def test_an_older_report_without_the_field_still_verifies(home: Path) -> None:
    report = plain(samples.evidence())
    for part in targets(report):
        del part["publication"]["review"]
    assert faults(report) == []
    assert Report.model_validate(report).publication is not None


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (samples.evaluation(**UNDECIDED), None),
        (samples.evaluation(), "its verdict is pass"),
        (samples.evaluation(estimate=0.8, ci=(0.75, 0.85), ci95=(0.74, 0.86)), "its verdict is fail"),
    ],
)
def test_only_what_is_undecided_can_be_released(told: Evaluation, why: str | None) -> None:
    found = why_not_releasable(told.as_json())
    assert found is None if why is None else str(found).startswith(why)


def test_an_exact_method_needs_its_training_record() -> None:
    held = samples.evaluation("procedure")
    undecided = held.model_copy(update={"verdict": "inconclusive", "grade": None})
    assert why_not_releasable(undecided.as_json()) is None
    missing = [check for check in held.checks if check.id != "provenance"]
    told = undecided.model_copy(update={"checks": missing})
    assert why_not_releasable(told.as_json()) == "the check provenance did not pass"
    assert why_not_releasable({"schema": "lethe/evaluation/0"}) is not None
