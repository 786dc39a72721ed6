"""The verifier: what is right passes, every changed byte and every edited claim fails with its line."""

import io
import json
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.audit import service as audit
from service.reports import verify
from service.reports.bundle import build_bundle
from service.reports.schema import Report
from service.reports.signing import key_id, load_or_create_key
from service.settings import get_settings
from service.verification.policy import Policy
from service.verification.schema import Evaluation
from service.verification.verdict import judge
from tests.service.reports import samples

Edit = Callable[[dict[str, Any]], None]


def members(bundle: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def faults(bundle: bytes) -> list[tuple[str, str]]:
    result = verify.verify_bundle(bundle)
    assert result.ok is not any(not finding.ok for finding in result.findings)
    return [(finding.check, finding.detail) for finding in result.findings if not finding.ok]


def resigned(bundle: bytes, edit: Edit) -> bytes:
    """The bundle of a signer who edits the report and signs it again: only its content can give it away."""
    old = members(bundle)
    report = json.loads(old["report.json"])
    edit(report)
    return build_bundle(json.dumps(report).encode(), old["report.pdf"], load_or_create_key(get_settings().home))


def test_a_bundle_verifies(bundle: bytes) -> None:
    assert faults(bundle) == []
    assert list(members(bundle)) == list(verify.MEMBERS)


def test_the_same_report_gives_the_same_bundle(bundle: bytes) -> None:
    parts = members(bundle)
    assert build_bundle(parts["report.json"], parts["report.pdf"], load_or_create_key(get_settings().home)) == bundle


def test_the_trusted_key_is_asked_for(bundle: bytes) -> None:
    ours = load_or_create_key(get_settings().home).public_key()
    assert verify.verify_bundle(bundle, ours).ok
    other = Ed25519PrivateKey.generate().public_key()
    result = verify.verify_bundle(bundle, other)
    assert not result.ok
    assert ("key", False) in [(finding.check, finding.ok) for finding in result.findings]
    assert any(key_id(other) in finding.detail for finding in result.findings)


def test_any_changed_byte_is_found(bundle: bytes) -> None:
    places = random.Random(0).sample(range(len(bundle)), 150)
    directory = bundle.rindex(b"PK\x01\x02")
    places += [*range(60), *range(directory, len(bundle), 3), len(bundle) - 1]
    for place in places:
        changed = bytearray(bundle)
        changed[place] ^= 1 << place % 8
        assert faults(bytes(changed)), place


@pytest.mark.parametrize("name", verify.MEMBERS)
def test_a_changed_file_is_named(bundle: bytes, name: str) -> None:
    parts = members(bundle)
    last = parts[name].rstrip()
    changed = {**parts, name: last[:-4] + bytes([last[-4] ^ 1]) + last[-3:]}
    found = faults(verify.pack(changed))
    assert found
    assert any(name in line or name == "signature.json" for _, line in found)


def test_added_missing_and_trailing_bytes_are_found(bundle: bytes) -> None:
    parts = members(bundle)
    assert faults(bundle + b"\0")
    assert faults(b"\0" + bundle)
    assert faults(bundle[:-1])
    assert faults(verify.pack({**parts, "extra.txt": b"x"}))
    assert faults(verify.pack({name: part for name, part in parts.items() if name != "events.json"}))
    assert faults(b"") == faults(b"not a zip")


def _verdict(report: dict[str, Any]) -> None:
    for part in (report, report["targets"][0]):
        check = next(entry for entry in part["verification"]["checks"] if entry["id"] == "membership_auc")
        check |= {"estimate": 0.9, "ci": [0.85, 0.95], "ci95": [0.84, 0.96]}


def _grade(report: dict[str, Any]) -> None:
    for part in (report, report["targets"][0]):
        part["grade"] = part["verification"]["grade"] = "A"


def _margin(report: dict[str, Any]) -> None:
    for part in (report, report["targets"][0]):
        next(entry for entry in part["verification"]["checks"] if entry["id"] == "membership_auc")["margin"] = 0.4


def _reference(report: dict[str, Any]) -> None:
    """A check with reference models whose verdict is not that of its numbers, with a margin of its own."""
    leaking = {"estimate": 0.9, "ci": (0.85, 0.95), "ci95": (0.84, 0.96)}
    check = samples.REFERENCE.model_copy(update=leaking | {"margin": 0.45, "role": "diagnostic", "verdict": "pass"})
    for part in (report, report["targets"][0]):
        part["verification"]["checks"].append(check.model_dump(mode="json"))


_LANGUAGE: dict[str, dict[str, Any]] = {
    "extraction_excess": {"estimate": 0.2, "ci": (0.1, 0.3), "ci95": (0.08, 0.32), "margin": 0.35, "p_value": 0.2},
    "extraction_control": {"estimate": 0.8, "ci": (0.7, 0.9), "ci95": (0.7, 0.9), "margin": 0.35, "p_value": 5e-4},
    "extraction_strength": {"estimate": 0.2, "ci": (0.1, 0.3), "ci95": (0.08, 0.32), "margin": 0.35},
    "extraction_strength_control": {"estimate": 0.3, "ci": (0.2, 0.4), "ci95": (0.2, 0.4), "margin": 0.05},
    "canary_exposure": {"estimate": 1.4, "ci": (1.2, 1.8), "ci95": (1.1, 1.9), "margin": 5.0},
    "canary_exposure_control": {"estimate": 8.0, "ci": (7.5, 8.5), "ci95": (7.4, 8.6), "margin": 5.0},
    "canary_rank_one": {"estimate": 30.0, "ci": None, "ci95": None, "margin": 40.0},
    "value_exposure": {"estimate": 3.0, "ci": (2.5, 3.5), "ci95": (2.4, 3.6), "margin": 5.0},
    "value_exposure_control": {"estimate": 4.9, "ci": (4.7, 5.1), "ci95": (4.6, 5.2), "margin": 5.0},
}
"""Checks of language models with margins of the signer's own, under which all that leaks would pass."""


def _language(report: dict[str, Any]) -> None:
    plain = samples.REFERENCE.model_copy(update={"references": None, "p_value": None})
    made = [plain.model_copy(update=values | {"id": name}) for name, values in _LANGUAGE.items()]
    for part in (report, report["targets"][0]):
        told = Evaluation.model_validate(part["verification"])
        checks = judge([*told.checks, *made], told.basis, Policy().verification)
        part["verification"]["checks"] = [check.model_dump(mode="json") for check in checks]


@pytest.mark.parametrize("name", _LANGUAGE)
def test_margins_of_language_models_are_not_the_signer_s(bundle: bytes, name: str) -> None:
    found = faults(resigned(bundle, _language))
    # Verdicts follow from the numbers as stated: only the margins give it away.
    assert not [line for check, line in found if check == "verdict" and " is stated as " in line]
    assert any(check == "verdict" and f": {name}: the " in line for check, line in found), found


def _policy(report: dict[str, Any]) -> None:
    for part in (report, report["targets"][0]):
        part["policy"]["document"]["verification"]["auc_margin"] = {"33": 0.4}


def _old_rules(report: dict[str, Any]) -> None:
    """A report from before the rules had a name of their own: it is not judged by those of today."""
    for part in (report, report["targets"][0]):
        part["verification"]["schema"] = "lethe/evaluation/1"
        part["attempts"][0]["verification"]["schema"] = "lethe/evaluation/1"


def _digest(report: dict[str, Any]) -> None:
    for part in (report, report["targets"][0]):
        part["lineage"]["new_version"]["digest"] = "00" * 32


def _failed_attempt(report: dict[str, Any]) -> None:
    for part in (report, report["targets"][0]):
        part["attempts"][0] |= {"verdict": "pass"}


def _event(report: dict[str, Any]) -> None:
    report["log_proof"]["events"][2]["data"]["policy"] = "0" * 64


def _link(report: dict[str, Any]) -> None:
    report["log_proof"]["events"][3]["previous_chain_hash"] = "0" * 64


def _order(report: dict[str, Any]) -> None:
    report["log_proof"]["events"].reverse()


def _others(report: dict[str, Any]) -> None:
    report["request"]["id"] = "req_other"


def _schema(report: dict[str, Any]) -> None:
    report["schema"] = "lethe/report/2"


def _shape(report: dict[str, Any]) -> None:
    del report["targets"][0]["lineage"]


@pytest.mark.parametrize(
    ("edit", "check", "words"),
    [
        (_verdict, "verdict", "membership_auc is stated as pass"),
        (_grade, "verdict", "stated pass grade A, the checks say pass grade C"),
        (_margin, "verdict", "membership_auc: the margin 0.4 is not the one of the policy for 90 records"),
        (_reference, "verdict", "reference_auc is stated as pass"),
        (_reference, "verdict", "reference_auc: the margin 0.45 is not the one of the policy for 90 records"),
        (_old_rules, "verdict", "rules of lethe/evaluation/1, and this version knows those of lethe/evaluation/2"),
        (_policy, "policy", "the policy's digest is not that of the policy"),
        (_digest, "versions", "the new version's digest is not that of the attempt that passed"),
        (_failed_attempt, "log", "attempt 1: the log does not hold its verdict pass"),
        (_event, "events", "its content does not match its leaf hash"),
        (_link, "events", "its chain hash does not follow"),
        (_order, "events", "is not above"),
        (_others, "events", "no event is about the request"),
        (_schema, "content", "has the schema 'lethe/report/2'"),
        (_shape, "versions", "not of the shape of its schema"),
    ],
)
def test_an_edited_claim_is_found_though_it_is_signed(bundle: bytes, edit: Edit, check: str, words: str) -> None:
    found = faults(resigned(bundle, edit))
    assert any(name == check and words in line for name, line in found), found


def test_hashes_are_those_of_the_audit_log() -> None:
    for event in samples.events():
        assert verify.leaf_hash(event) == audit.leaf_hash_of(event)
        assert verify.chain_hash(event["previous_chain_hash"], event["leaf_hash"]) == event["chain_hash"]
    assert verify.EMPTY_CHAIN == audit.EMPTY_CHAIN


def test_the_guide_works_with_python_and_cryptography_alone(bundle: bytes, tmp_path: Path) -> None:
    for name, content in members(bundle).items():
        (tmp_path / name).write_bytes(content)
    guide = (tmp_path / "VERIFY.md").read_text()
    found = re.search(r"python3 - <<'END'\n(.*?)\n    END", guide, re.DOTALL)
    assert found
    script = re.sub(r"^    ", "", found[1], flags=re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.splitlines()) == {f"{name} ok" for name in verify.SIGNED}
    key = load_or_create_key(get_settings().home).public_key()
    key.verify((tmp_path / "signature.bin").read_bytes(), (tmp_path / "signed.bin").read_bytes())


def test_the_verifier_loads_nothing_of_the_service_but_the_verdict(bundle: bytes, tmp_path: Path) -> None:
    (tmp_path / "bundle.zip").write_bytes(bundle)
    script = (
        "import sys; from pathlib import Path; from service.reports.verify import verify_bundle\n"
        "assert verify_bundle(Path(sys.argv[1]).read_bytes()).ok\n"
        "loaded = sorted(name for name in sys.modules if name.startswith('service.'))\n"
        "print(*loaded)\n"
        "assert 'sqlalchemy' not in sys.modules and 'fastapi' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "bundle.zip")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(verify.__file__).parents[2])
    allowed = (
        "service.reports",
        "service.reports.verify",
        "service.verification",
        "service.catalogue",
        "service.errors",
    )
    assert [name for name in done.stdout.split() if not name.startswith(allowed)] == []


def test_an_old_evaluation_is_refused_with_one_line_and_never_called_wrong(bundle: bytes) -> None:
    found = faults(resigned(bundle, _old_rules))
    assert len(found) == 2  # the published attempt and the one before it
    assert all(name == "verdict" and "with the version of Lethe that wrote it" in line for name, line in found)
    # It stays readable: reports are rendered again from what they hold.
    parts = json.loads(members(resigned(bundle, _old_rules))["report.json"])
    assert Report.model_validate(parts).verification is not None


def test_rules_that_nobody_knows_are_not_guessed(bundle: bytes) -> None:
    def ahead(report: dict[str, Any]) -> None:
        for part in (report, report["targets"][0]):
            part["verification"]["schema"] = "lethe/evaluation/3"

    assert any(name == "verdict" and "not of the shape" in line for name, line in faults(resigned(bundle, ahead)))
