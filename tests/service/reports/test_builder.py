"""What the report says for each outcome."""

from datetime import timedelta

import pytest

from service.reports.builder import build_report
from service.reports.document import document_of
from service.reports.facts import JobEvidence, RequestFacts
from service.reports.schema import Report
from tests.service.reports import samples

FORBIDDEN = ("erased", "removed from the model", "guaranteed", "certified", "compliant", "anonymous", "irreversible")


def report_of(job: JobEvidence, request: RequestFacts | None = None, **target: object) -> Report:
    facts = samples.target(**target)
    return build_report(
        request or samples.request(), [(facts, job)], samples.events(job), [], samples.NOW, "Lethe 0", "0" * 64
    )


def text_of(report: Report) -> str:
    document = document_of(report)
    return " ".join([str(document["decision"]), str(document["sections"]), str(document["verdicts"])])


def test_measured_publication() -> None:
    report = report_of(samples.evidence())
    assert report.request.outcome == "published"
    assert report.grade == "C"
    assert [attempt.state for attempt in report.attempts] == ["failed", "passed"]
    assert report.attempts[0].verification is not None
    assert report.attempts[1].verification is None  # it is the report's own
    assert "0.518, 95 % interval 0.452 to 0.584, margin 0.100; n = 90, m = 300: pass" in text_of(report)
    assert any("measurement by the named checks" in line for line in report.limits)


def test_procedure_is_told_in_the_allowed_words() -> None:
    text = text_of(report_of(samples.evidence(published="retrain")))
    assert "retrained from scratch without the listed records (exact, by procedure)" in text
    assert "They did not decide" in text


@pytest.mark.parametrize("outcome", ["no_records", "already_deleted"])
def test_an_honest_answer_without_a_version(outcome: str) -> None:
    report = report_of(samples.nothing_found(), outcome=outcome, records=0)
    assert report.request.outcome == outcome
    assert report.publication is None
    assert report.verification is None
    assert report.lineage is not None
    assert report.lineage.new_version is None
    assert report.lineage.dataset.records_after == report.lineage.dataset.records_before
    phrase = "No records found" if outcome == "no_records" else "by an earlier request"
    assert phrase in text_of(report)


def test_a_run_for_others_is_not_told_to_somebody_without_records() -> None:
    report = report_of(samples.evidence(), outcome="no_records", records=0)
    assert report.attempts == []
    assert report.scope is not None
    assert report.scope.job_subjects == 0
    assert report.publication is None


def test_a_missed_deadline_is_said() -> None:
    late = samples.request(due_at=samples.NOW - timedelta(days=2))
    report = report_of(samples.evidence(), late)
    assert not report.clock.in_time
    assert "2.0 days late" in text_of(report)


def test_one_person_and_few_records_are_named_as_limits() -> None:
    job = samples.evidence(records=12, subjects=1)
    few = samples.evaluation(n=12, margin=None, smallest_detectable=0.31)
    attempts = [job.attempts[0], job.attempts[1].model_copy(update={"verification": few})]
    limits = " ".join(report_of(job.model_copy(update={"attempts": attempts}), records=12).limits)
    assert "served one person" in limits
    assert "too few for a population test" in limits
    assert "less than about 0.31 would have been missed" in limits


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"record": False}, "trained elsewhere and has no training record"),
        ({"log": "none"}, "was not logged"),
        ({"log": "lost", "carried_on": None}, "has been destroyed or damaged since"),
        ({"canaries": 0}, "The model was trained without companion canaries"),
        ({"canaries_lost": True}, "The list of the 73 companion canaries"),
        ({"held_out": "given", "reserved": 0}, "supplied and not kept out of the training by a coin"),
        ({"carried_on": False}, "does not carry the log of the training on"),
    ],
)
@pytest.mark.parametrize(("published", "grade"), [("nabla_tau", "C"), ("retrain", "A")])
def test_what_the_training_did_not_leave_is_a_limit(
    published: str, grade: str, change: dict[str, object], said: str
) -> None:
    whole = samples.TRACES.model_copy(update=change)
    told = samples.evaluation("procedure" if grade == "A" else "measurement", traces=whole)
    report = report_of(samples.with_evaluation(samples.evidence(published=published), told))
    assert report.grade == grade
    (line,) = [line for line in report.limits if said in line]
    assert line in text_of(report)
    full = samples.evaluation("procedure" if grade == "A" else "measurement", traces=samples.TRACES)
    assert said not in text_of(report_of(samples.with_evaluation(samples.evidence(published=published), full)))


@pytest.mark.parametrize(("count", "row"), [(None, "not searched for"), (0, "0"), (7, "7")])
def test_copies_that_stay_are_counted_in_scope_and_limits(count: int | None, row: str) -> None:
    report = report_of(samples.with_evaluation(samples.evidence(), samples.evaluation(near_duplicates=count)))
    assert report.scope is not None
    assert report.scope.near_duplicates.retained == count
    assert report.scope.near_duplicates.computed == (count is not None)
    assert f"['Copies among kept records', '{row}']" in text_of(report)
    assert any("7 retained records are exact copies" in line for line in report.limits) == (count == 7)
    assert any("were not searched for" in line for line in report.limits) == (count is None)


def test_an_attack_with_references_that_fails_clearly_is_on_page_one() -> None:
    """Nobody looked for copies here, which could explain it: an exact method is not held back for it."""
    failing = {"estimate": 0.8, "ci": (0.72, 0.88), "ci95": (0.71, 0.89), "p_value": 2e-5}
    told = samples.evaluation("procedure", reference=failing)
    report = report_of(samples.with_evaluation(samples.evidence(published="retrain"), told))
    text = text_of(report)
    assert "calibrated by 8 reference models for each record reached an AUC of 0.800" in text
    assert "a person should look before this is published" in text
    assert report.verification is not None
    assert (report.verification.verdict, report.grade) == ("pass", "A")
    assert any("8 for each record" in line for line in report.limits)
    plain = report_of(samples.evidence(published="retrain"))
    assert "a person should look" not in text_of(plain)
    assert any("Without reference models" in line for line in plain.limits)


def test_an_attack_with_references_that_gates_is_told_once_and_not_as_a_diagnostic() -> None:
    report = report_of(samples.with_evaluation(samples.evidence(), samples.evaluation(reference={})))
    lines = page_one(report)["What was found"]
    assert len([line for line in lines if line.startswith("Membership attack with reference models (AUC): 0.518")]) == 1
    assert not [line for line in lines if line.startswith("As a diagnostic, the membership attack calibrated")]


def page_one(report: Report) -> dict[str, list[str]]:
    return {part["title"]: part["lines"] for part in document_of(report)["decision"]}


@pytest.mark.parametrize(
    ("published", "made"),
    [
        ("nabla_tau", "The approximate procedure nabla_tau was run from version 1."),
        ("retrain", "Version 2 was retrained from scratch without the listed records"),
    ],
)
def test_page_one_tells_what_was_done_and_what_was_tried_before(published: str, made: str) -> None:
    done = page_one(report_of(samples.evidence(published=published)))["What was done"]
    assert done[0].startswith(made)
    assert done[1] == "1 attempt before it was not published: negative_gradient_plus (failed)."
    assert "Version 1 was retired on" in done[2]


def test_page_one_tells_an_exact_verdict_why_and_what_gates_beside_it() -> None:
    found = page_one(report_of(samples.evidence(published="retrain")))["What was found"]
    assert found[0] == "digits: verdict pass, grade A (exact method, judged by procedure)."
    assert found[1].startswith("In short: an exact method was run")
    assert found[2].startswith("Utility on held-out records: -0.004, 95 % interval")
    assert found[3].startswith("As a diagnostic, the membership attack reached an AUC of 0.518")


def test_page_one_says_where_nothing_was_done() -> None:
    report = report_of(samples.nothing_found(), outcome="no_records", records=0)
    assert page_one(report)["What was done"] == ["digits: nothing was changed."]


@pytest.mark.parametrize(("change", "verdict", "said"), [
    ({}, "pass", True),
    ({"ci": (0.3, 0.7), "ci95": (0.29, 0.71)}, "inconclusive", False),
    ({"estimate": 0.8, "ci": (0.75, 0.85), "ci95": (0.74, 0.86)}, "fail", False),
])  # fmt: skip
def test_that_nothing_was_found_is_said_of_a_pass_alone(change: dict[str, object], verdict: str, said: bool) -> None:
    told = samples.evaluation(**change)  # type: ignore[arg-type]
    assert told.verdict == verdict
    text = text_of(report_of(samples.with_evaluation(samples.evidence(), told)))
    assert "would have been noticed with a chance of 80 %" in text
    assert ("none was found" in text) is said
    # Reasons name the check as people do, not by its id.
    assert "membership_auc:" not in text


@pytest.mark.parametrize("published", ["nabla_tau", "retrain"])
def test_forbidden_words_do_not_occur(published: str) -> None:
    job = samples.evidence(published=published)
    basis = "procedure" if published == "retrain" else "measurement"
    bare = samples.TRACES.model_copy(update={"record": False, "log": "none", "canaries": 0, "held_out": "given"})
    for traces in (None, samples.TRACES, bare):
        told = samples.evaluation(basis, traces=traces, near_duplicates=3, reference={}, more=samples.PLANTED)  # type: ignore[arg-type]
        assert [
            word for word in FORBIDDEN if word in text_of(report_of(samples.with_evaluation(job, told))).lower()
        ] == []
    text = text_of(report_of(job)).lower()
    assert [word for word in FORBIDDEN if word in text] == []
