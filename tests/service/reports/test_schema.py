"""The shape of report.json: what is written is what the published schema says, and reads back the same."""

import json

import jsonschema_rs
import pytest
from pydantic import ValidationError

from service.reports import schema
from service.reports.builder import build_report
from service.reports.facts import RequestFacts
from tests.service.reports import samples


def made(*targets: str) -> schema.Report:
    pairs = [(samples.target(model=name), samples.evidence()) for name in targets or ("digits",)]
    return build_report(samples.request(), pairs, samples.events(), [], samples.NOW, "Lethe 0", "0" * 64)


def test_round_trip() -> None:
    report = made()
    assert schema.Report.model_validate_json(schema.report_bytes(report)) == report


def test_written_reports_fit_the_published_schema() -> None:
    validator = jsonschema_rs.validator_for(schema.json_schema())
    for report in (made(), made("digits", "support-bot")):
        assert list(validator.iter_errors(json.loads(schema.report_bytes(report)))) == []


def test_the_parts_named_in_the_contract_are_at_the_top_for_one_model() -> None:
    report = json.loads(schema.report_bytes(made()))
    assert report["schema"] == "lethe/report/1"
    assert report["verification"]["verdict"] == "pass"
    assert report["verification"] == report["targets"][0]["verification"]
    assert report["lineage"]["new_version"] == {"number": 2, "digest": samples.CANDIDATE}
    named = {"request", "clock", "scope", "lineage", "plan", "attempts", "grade", "publication", "limits", "log_proof"}
    assert named <= report.keys()


def test_several_models_are_told_under_targets_alone() -> None:
    report = made("digits", "support-bot")
    assert [target.model for target in report.targets] == ["digits", "support-bot"]
    assert report.verification is None
    assert report.attempts == []


def test_a_top_level_that_differs_from_its_target_is_refused() -> None:
    edited = json.loads(schema.report_bytes(made()))
    edited["grade"] = "A"
    with pytest.raises(ValidationError, match="grade"):
        schema.Report.model_validate(edited)


def test_facts_take_no_field_that_could_name_a_person() -> None:
    with pytest.raises(ValidationError):
        RequestFacts.model_validate(samples.request().model_dump() | {"email": "jane@example.org"})
