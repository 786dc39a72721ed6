"""The verifier on qualifications: what covers a run passes; forged, expired and borrowed documents are noticed."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.reports import service, verify
from service.reports.bundle import build_bundle
from service.reports.facts import JobEvidence
from service.reports.schema import Report
from service.reports.signing import load_or_create_key
from service.settings import get_settings
from service.verification.policy import Policy
from service.verification.qualification import (
    VALID,
    Figure,
    Qualification,
    SizeClass,
    find_qualification,
    judged,
    qualification_digest,
    rules_digest,
)
from service.verification.schema import Check, Evaluation, Qualified, Use
from service.verification.verdict import decide, explain, judge
from tests.service.reports import samples
from tests.service.reports.test_verify import members

TODAY = samples.NOW.date()
POLICY = Policy().model_dump(mode="json")
PARAMS = {"alpha": 0.5, "floor": 0.1}
Edit = Callable[[dict[str, Any]], None]


def use(**changes: Any) -> Use:
    values: dict[str, Any] = {
        "task": "image-classification", "recipe_digest": "r" * 64, "data_digest": "d1" * 32, "holdout_digest": "h" * 64,
        "rules_digest": rules_digest(POLICY), "companions": 73, "code_version": "0.1.0+g1a2b3c4",
        "packages": {"torch": "2.3.0"}, "records": 90, "on": TODAY,
    }  # fmt: skip
    return Use(**(values | changes))


def document(**changes: Any) -> Qualification:
    """A qualification of the sample's method for sets of ten to ninety-nine records."""
    bounds: dict[str, Any] = {"statistic": "", "ci": (0.49, 0.51), "ci95": (0.48, 0.52), "low": 0.4, "high": 0.6}
    figures = [Figure(name=name, **bounds) for name in ("auc", "tpr", "worst_decile", "utility")]
    shared = use().model_dump(exclude={"records", "on"})
    values = shared | {
        "method": "nabla_tau", "params": PARAMS, "model_digest": "m" * 64, "records": 1437, "policy_digest": "p" * 64,
        "issued": TODAY - timedelta(days=9), "valid_until": TODAY - timedelta(days=9) + VALID, "seed": 0,
        "repetitions": 20, "classes": [SizeClass(size=10, runs=60, pooled=figures, designs={})],
    }  # fmt: skip
    return judged(Qualification.model_validate(values | changes))


def evaluation() -> Evaluation:
    """A measured pass of grade B: canaries pass at the narrow margin, and a qualification covers the method."""
    wide = {"n": 400, "m": 2000, "margin": 0.05, "ci": (0.47, 0.53), "ci95": (0.465, 0.535), "estimate": 0.5}
    planted = [
        samples.PLANTED[0].model_copy(update=wide),
        samples.PLANTED[1].model_copy(update={"n": 400, "m": 2000, "margin": 0.12, "ci": (0.03, 0.08)}),
        samples.PLANTED[2].model_copy(update=wide | {"ci95": (0.85, 0.93), "ci": (0.86, 0.92), "estimate": 0.89}),
    ]
    plain = samples.evaluation(more=[Check.model_validate(check.model_dump()) for check in planted])
    found = find_qualification([document()], "nabla_tau", PARAMS, use())
    assert isinstance(found, Qualified)
    checks = judge(plain.checks, "measurement", Policy().verification)
    verdict, grade = decide(checks, "measurement", found)
    assert (verdict, grade) == ("pass", "B")
    told = {"checks": checks, "verdict": verdict, "grade": grade, "qualification": found}
    return plain.model_copy(update=told | {"reason": explain(checks, "measurement", found)})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """(a home with its key, the bundle of a job that published a qualified method's candidate)."""
    home = tmp_path_factory.mktemp("qualified")
    job: JobEvidence = samples.with_evaluation(samples.evidence(), evaluation())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_HOME", str(home))
        get_settings.cache_clear()
        service.write_job_evidence(job)
        service.write_request_report(samples.request(), [samples.target()], samples.events(job), samples.NOW)
        made = service.read_form(samples.REQUEST, "zip")
    get_settings.cache_clear()
    return home, made


def faults(template: tuple[Path, bytes], edit: Edit) -> list[tuple[str, str]]:
    """What the verifier says of a report that was edited and signed again by its own service."""
    home, made = template
    old = members(made)
    report = json.loads(old["report.json"])
    for part in (report, report["targets"][0]):
        edit(part)
    again = build_bundle(json.dumps(report).encode(), old["report.pdf"], load_or_create_key(home))
    return [(found.check, found.detail) for found in verify.verify_bundle(again).findings if not found.ok]


def stated(part: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = part["verification"]["qualification"]
    return found


def exchanged(part: dict[str, Any], other: Qualification, **changes: Any) -> None:
    """Name another document, with everything about it that is stated beside it."""
    found = other.classes[0]
    stated(part).update(document=other.as_json(), digest=other.digest, size=found.size, verdict=found.verdict)
    stated(part).update(valid_until=other.valid_until.isoformat(), **changes)


def test_a_qualification_that_covers_the_run_is_derived_again(template: tuple[Path, bytes]) -> None:
    result = verify.verify_bundle(template[1])
    assert [found for found in result.findings if not found.ok] == []
    assert ("qualified", True) in [(found.check, found.ok) for found in result.findings]
    assert json.loads(members(template[1])["report.json"])["grade"] == "B"
    assert faults(template, lambda part: None) == []


def _believed(part: dict[str, Any]) -> None:
    stated(part).update(document=None, use=None)


def _figures(part: dict[str, Any]) -> None:
    stated(part)["document"]["classes"][0]["pooled"][0]["ci"] = [0.4, 0.7]


def _hashed(part: dict[str, Any]) -> None:
    """The same with a digest that fits the forged figures."""
    _figures(part)
    told = stated(part)["document"]
    told["digest"] = stated(part)["digest"] = qualification_digest(told)


def _failed(part: dict[str, Any]) -> None:
    bad = Figure(name="auc", statistic="", ci=(0.7, 0.8), ci95=(0.7, 0.8), low=0.4, high=0.6)
    exchanged(part, document(classes=[SizeClass(size=10, runs=9, pooled=[bad], designs={})]), verdict="qualified")


def _expired(part: dict[str, Any]) -> None:
    exchanged(part, document(issued=TODAY - 2 * VALID, valid_until=TODAY - VALID))


def _dated_back(part: dict[str, Any]) -> None:
    """An expired one, looked up while it was valid."""
    _expired(part)
    day = (TODAY - VALID).isoformat()
    stated(part)["looked_at"] = stated(part)["use"]["on"] = day


def _prolonged(part: dict[str, Any]) -> None:
    stated(part)["valid_until"] = "2030-01-01"


def _method(part: dict[str, Any]) -> None:
    exchanged(part, document(method="negative_gradient_plus"))


def _renamed(part: dict[str, Any]) -> None:
    """The attempt is said to be of the method that is qualified."""
    exchanged(part, document(method="negative_gradient_plus"))
    part["attempts"][1]["method"] = "negative_gradient_plus"


def _params(part: dict[str, Any]) -> None:
    part["attempts"][1]["params"] = {"alpha": 0.9}


def _smaller(part: dict[str, Any]) -> None:
    """A set of nine records would not have been covered, so that ninety are claimed."""
    part["scope"]["job_records"] = 9


def _task(part: dict[str, Any]) -> None:
    exchanged(part, document(task="causal-lm"))
    stated(part)["use"]["task"] = "causal-lm"


def _data(part: dict[str, Any]) -> None:
    exchanged(part, document(data_digest="e" * 64))
    stated(part)["use"]["data_digest"] = "e" * 64


def _rules(part: dict[str, Any]) -> None:
    exchanged(part, document(rules_digest="e" * 64))
    stated(part)["use"]["rules_digest"] = "e" * 64


def _for_longer(part: dict[str, Any]) -> None:
    """Issued long ago and said to be valid until today, with a digest that fits."""
    exchanged(part, document(issued=TODAY - 2 * VALID, valid_until=TODAY + VALID))


def _reserve(part: dict[str, Any]) -> None:
    """A held-out set was given for the qualification, and the reserve stood in for the run."""
    part["verification"]["traces"] = samples.TRACES.model_dump(mode="json")


def _packages(part: dict[str, Any]) -> None:
    exchanged(part, document(packages={"torch": "2.2.0"}))


def _looked_up(part: dict[str, Any], **changes: Any) -> None:
    """A qualification of another line, looked up for that line: each fits the other, and neither what was run."""
    exchanged(part, document(**changes))
    stated(part)["use"].update(changes)


def _recipe(part: dict[str, Any]) -> None:
    _looked_up(part, recipe_digest="e" * 64)


def _held_out(part: dict[str, Any]) -> None:
    _looked_up(part, holdout_digest="e" * 64)


def _other_packages(part: dict[str, Any]) -> None:
    _looked_up(part, packages={"torch": "2.2.0"})


def _said_to_fit(part: dict[str, Any]) -> None:
    """And the attempt is said to have been made with that recipe."""
    _recipe(part)
    part["attempts"][1]["made_with"]["recipe_digest"] = "e" * 64


def _silent(part: dict[str, Any]) -> None:
    """As a report of an earlier version, which says nothing of it; the log does."""
    _recipe(part)
    part["attempts"][1]["made_with"] = None


def _digest_of_rules(part: dict[str, Any]) -> None:
    part["policy"]["rules_digest"] = "e" * 64


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_believed, "a qualification is stated without its document"),
        (_figures, "its digest is another one"),
        (_hashed, "its verdict does not follow from its figures"),
        (_failed, "size 10 is not qualified: auc fails on all designs"),
        (_expired, "the qualification was valid from"),
        (_dated_back, "the log says that it was judged another day"),
        (_prolonged, "what is stated of the qualification is not what its document says"),
        (_method, "the qualification is of another method"),
        (_renamed, "the log does not hold that negative_gradient_plus was judged"),
        (_params, "the qualification is of other parameters"),
        (_smaller, "its qualification was looked up for another number of records"),
        (_task, "its qualification was looked up for another task"),
        (_data, "its qualification was looked up for another data set"),
        (_rules, "its qualification was looked up for another policy"),
        (_for_longer, "it is said to be valid for more than 90 days"),
        (_reserve, "its qualification was looked up for another held-out set"),
        (_recipe, "its qualification was looked up for another recipe"),
        (_held_out, "its qualification was looked up for another held-out set"),
        (_other_packages, "its qualification was looked up for another set of packages"),
        (_said_to_fit, "attempt 2: the log does not hold what it is said to have been made with"),
        (_silent, "attempt 2: the log does not hold what it is said to have been made with"),
        (_digest_of_rules, "the digest of the rules is not that of the policy in the report"),
        (_packages, "other packages: torch 2.2.0 (here 2.3.0)"),
    ],
)
def test_a_forged_qualification_is_noticed_though_it_is_signed(
    template: tuple[Path, bytes], edit: Edit, words: str
) -> None:
    found = faults(template, edit)
    assert any(name == "qualified" and words in line for name, line in found), found


def test_a_grade_without_a_qualification_does_not_follow(template: tuple[Path, bytes]) -> None:
    def stripped(part: dict[str, Any]) -> None:
        part["verification"]["qualification"] = None

    assert any("the checks say pass grade C" in line for _, line in faults(template, stripped))


def test_a_report_of_an_earlier_version_is_read_and_verified_as_before(tmp_path: Path) -> None:
    """Neither it nor its log say what was made with what."""
    job = samples.with_evaluation(samples.evidence(), evaluation())
    job = job.model_copy(update={"attempts": [one.model_copy(update={"made_with": None}) for one in job.attempts]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_HOME", str(tmp_path))
        get_settings.cache_clear()
        service.write_job_evidence(job)
        service.write_request_report(samples.request(), [samples.target()], samples.events(job), samples.NOW)
        made = service.read_form(samples.REQUEST, "zip")
    get_settings.cache_clear()

    def without_news(part: dict[str, Any]) -> None:
        del part["policy"]["rules_digest"]
        for attempt in part["attempts"]:
            del attempt["made_with"]

    assert faults((tmp_path, made), without_news) == []
    report = json.loads(members(made)["report.json"])
    for part in (report, report["targets"][0]):
        without_news(part)
    assert Report.model_validate(report).attempts[1].made_with is None
