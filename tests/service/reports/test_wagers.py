"""The wager over publications in the report: what it says, what it draws, and that it is derived again."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from service.reports import service, verify
from service.reports.builder import build_report
from service.reports.bundle import build_bundle
from service.reports.document import document_of
from service.reports.facts import JobEvidence
from service.reports.schema import SequencePart
from service.reports.signing import key_id, load_or_create_key
from service.reports.wagers import Published, draw_sequence, sequence_of
from service.settings import get_settings
from service.verification.sequential import Wager
from tests.service.reports import samples

ALPHA = 0.05


def sequence(*rights: float, attempts: int = 2) -> SequencePart:
    """Publications of 73 guesses each, so many of them right; the last one made version 2."""
    first = 3 - len(rights)
    published = [Published(first + at, attempts, 0.025, 73, right) for at, right in enumerate(rights)]
    made = sequence_of(published, ALPHA)
    assert made is not None
    return made


def job_with(told: SequencePart) -> JobEvidence:
    evaluation = samples.evaluation()
    evaluation.metrics.update({"canary_guesses": 73, "canary_guesses_right": told.steps[-1].right})
    return samples.with_evaluation(samples.evidence(), evaluation).model_copy(update={"sequence": told})


def test_each_step_is_the_wager_after_it() -> None:
    told = sequence(40.0, 36.5)
    wager = Wager().plus(40.0, 73).plus(36.5, 73)
    last = told.steps[-1]
    assert (last.version, last.attempts, last.alpha_spent) == (2, 2, 0.025)
    assert (last.log_wealth, (last.low, last.high)) == (wager.log_wealth, wager.interval(ALPHA))
    assert (told.null, told.peak, told.alarm) == (0.5, wager.peak, False)
    assert last.low < 76.5 / 146 < last.high
    assert last.high - last.low < told.steps[0].high - told.steps[0].low
    assert sequence(60.0).alarm
    assert sequence(60.0, 36.0).alarm  # it stays on
    assert sequence_of([Published(2, 1, 0.05, 0, 0.0)], ALPHA) is None
    assert sequence_of([], ALPHA) is None


def test_the_figure_is_drawn_the_same_and_shows_the_alarm_line() -> None:
    told = sequence(40.0, 36.5)
    assert draw_sequence(told) == draw_sequence(told)
    assert draw_sequence(told) != draw_sequence(sequence(60.0, 36.5))
    assert draw_sequence(sequence(*[45.0] * 10)).startswith(b"<svg")


def text_of(told: SequencePart) -> str:
    job = job_with(told)
    report = build_report(
        samples.request(), [(samples.target(), job)], samples.events(job), [], samples.NOW, "Lethe 0", "0" * 64
    )
    assert report.targets[0].sequence == told
    return str(document_of(report))


def test_an_alarm_is_among_the_limits_and_no_alarm_is_not() -> None:
    assert "an alarm of the running wager" in text_of(sequence(60.0))
    assert "alarm of the running wager" not in text_of(sequence(40.0))


@pytest.fixture
def bundle(home: object) -> bytes:
    """The bundle of a report with two publications, with its figures."""
    told = sequence(40.0, 36.5)
    job = job_with(told)
    service.write_job_evidence(job)
    service.write_request_report(samples.request(), [samples.target()], samples.events(job), samples.NOW)
    report = json.loads(service.read_form(samples.REQUEST, "json"))
    assert [plot["title"] for plot in report["targets"][0]["plots"] if plot["name"].endswith("/sequence")] == [
        "Publications so far"
    ]
    return service.read_form(samples.REQUEST, "zip")


def _wealth(told: dict[str, Any]) -> None:
    told["steps"][0]["log_wealth"] += 0.01


def _bound(told: dict[str, Any]) -> None:
    told["steps"][1]["low"] += 0.01


def _alarm(told: dict[str, Any]) -> None:
    told["alarm"] = True


def _level(told: dict[str, Any]) -> None:
    told["alpha"] = 0.01


def _last(told: dict[str, Any]) -> None:
    del told["steps"][1:]


def _consistent_but_other(told: dict[str, Any]) -> None:
    """All figures follow from the guesses, which are not those of the evaluation."""
    told |= sequence(40.0, 30.0).model_dump(mode="json")


def _attempts(told: dict[str, Any]) -> None:
    told["steps"][1]["attempts"] = 1


@pytest.mark.parametrize("edit", [_wealth, _bound, _alarm, _level, _last, _consistent_but_other, _attempts])
def test_the_verifier_derives_it_again(bundle: bytes, edit: Callable[[dict[str, Any]], None]) -> None:
    right = verify.verify_bundle(bundle)
    assert right.ok, [finding for finding in right.findings if not finding.ok]
    assert "sequence" in [finding.check for finding in right.findings]
    key = load_or_create_key(get_settings().home)
    report = json.loads(service.read_form(samples.REQUEST, "json"))
    assert report["signatures"][0]["key_id"] == key_id(key.public_key())
    edit(report["targets"][0]["sequence"])
    wrong = verify.verify_bundle(build_bundle(json.dumps(report).encode(), b"", key))
    assert [finding.check for finding in wrong.findings if not finding.ok][:1] == ["sequence"]


def test_guesses_without_their_wager_are_noticed(bundle: bytes) -> None:
    report = json.loads(service.read_form(samples.REQUEST, "json"))
    for part in (report, report["targets"][0]):
        part["sequence"] = None
    key = load_or_create_key(get_settings().home)
    wrong = verify.verify_bundle(build_bundle(json.dumps(report).encode(), b"", key))
    assert ("sequence", "digits: guesses were made on planted records, and the wager over them is missing") in [
        (finding.check, finding.detail) for finding in wrong.findings if not finding.ok
    ]
