"""The stand-alone verifier of evidence bundles and audit events.

It needs nothing of the service that wrote them: the standard library, `cryptography`, `rfc8785` and the pure package
`service.verification`, from which the verdict is derived again. No database, no settings, no network.
"""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

REPORT_SCHEMA = "lethe/report/1"
EVENTS_SCHEMA = "lethe/events/1"
SIGNATURE_SCHEMA = "lethe/signature/1"
SIGNED = ("report.json", "report.pdf", "events.json", "public_key.pem", "VERIFY.md")
MEMBERS = (*SIGNED, "signature.json")
EMPTY_CHAIN = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Finding:
    """One thing that was checked, and a line that says what is right or wrong about it."""

    check: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verification:
    """The outcome for one bundle: `ok` when every check passed, one finding a line."""

    ok: bool
    findings: list[Finding]
    key_id: str | None
    key_is_trusted: bool

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"schema": "lethe/bundle-verification/1", **asdict(self)}


class _Broken(Exception):
    """Something is so wrong that later checks have nothing to work on."""


def verify_bundle(bundle: bytes, trusted_key: Ed25519PublicKey | None = None) -> Verification:
    """Check a bundle from its archive to its verdict. Never raises for a bad bundle: it fails with a line.

    Without `trusted_key` the key inside the bundle is used, which shows that nothing was changed since the signing,
    and not who signed.
    """
    findings: list[Finding] = []
    key_id = None
    try:
        members = _unpack(bundle)
        findings.append(Finding("archive", True, f"{len(members)} files, as packed"))
        key_id = _signature(members, trusted_key, findings)
        report = _load(members, "report.json")
        _report(report, members, key_id, findings)
    except _Broken as error:
        findings.append(Finding("archive" if not findings else "content", False, str(error)))
    return Verification(all(entry.ok for entry in findings), findings, key_id, trusted_key is not None)


def _unpack(bundle: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            names = archive.namelist()
            if names != list(MEMBERS):
                raise _Broken(f"the archive must hold {', '.join(MEMBERS)} in this order")
            members = {name: archive.read(name) for name in names}
    except (
        zipfile.BadZipFile,
        ValueError,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeError,
    ) as error:
        raise _Broken(f"the archive cannot be read: {error}") from error
    if pack(members) != bundle:
        raise _Broken("the archive holds bytes beside its files; it is not as the service packs it")
    return members


def pack(members: Mapping[str, bytes]) -> bytes:
    """A zip without compression, dates or traces of the machine: the same members give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _load(members: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        value = json.loads(members[name])
    except ValueError as error:
        raise _Broken(f"{name} is not JSON") from error
    if not isinstance(value, dict):
        raise _Broken(f"{name} is not a JSON object")
    return value


def _signature(members: Mapping[str, bytes], trusted_key: Ed25519PublicKey | None, findings: list[Finding]) -> str:
    """Signature and digests; answers the id of the key."""
    signature = _load(members, "signature.json")
    well_formed = signature.get("schema") == SIGNATURE_SCHEMA and signature.get("algorithm") == "ed25519"
    digests = signature.get("files")
    if not well_formed or not isinstance(digests, dict) or set(digests) != set(SIGNED):
        raise _Broken("signature.json is not a signature over the files of this bundle")
    enclosed = _public_key(members["public_key.pem"])
    key = trusted_key or enclosed
    identity = _key_id(key)
    findings.append(_same_key(identity, _key_id(enclosed), signature.get("key_id"), trusted_key is not None))
    try:
        key.verify(bytes.fromhex(str(signature.get("signature"))), rfc8785.dumps(digests))
        findings.append(Finding("signature", True, f"valid under key {identity}"))
    except (InvalidSignature, ValueError):
        findings.append(
            Finding("signature", False, f"the signature does not fit the list of digests under key {identity}")
        )
    for name in SIGNED:
        matches = hashlib.sha256(members[name]).hexdigest() == digests[name]
        findings.append(
            Finding("digest", matches, f"{name} {'is as signed' if matches else 'was changed after signing'}")
        )
    return identity


def _public_key(pem: bytes) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _Broken("public_key.pem is not a public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _Broken("public_key.pem is not an Ed25519 key")
    return key


def _key_id(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def _same_key(identity: str, enclosed: str, named: Any, trusted: bool) -> Finding:
    if identity != enclosed:
        return Finding("key", False, f"the bundle carries key {enclosed}, not the trusted key {identity}")
    if named != identity:
        return Finding("key", False, "signature.json names another key than the one in public_key.pem")
    return Finding(
        "key", True, "the trusted key" if trusted else "the key in the bundle; compare it with one that you trust"
    )


def _report(report: dict[str, Any], members: Mapping[str, bytes], key_id: str, findings: list[Finding]) -> None:
    if report.get("schema") != REPORT_SCHEMA:
        raise _Broken(f"report.json has the schema {report.get('schema')!r}; this verifier knows {REPORT_SCHEMA}")
    checks: tuple[tuple[str, Callable[[], Iterator[str]], str], ...] = (
        ("signer", lambda: _signer(report, key_id), "report.json names the key that signed it"),
        ("events", lambda: _events(report, _load(members, "events.json")), "leaf hashes and chain links are right"),
        ("log", lambda: _against_log(report), "the log tells the same of policy, attempts and versions"),
        ("versions", lambda: _versions(report), "digests of the versions agree"),
        ("policy", lambda: _policy(report), "the policies have the digests that are stated"),
        ("verdict", lambda: _verdicts(report), "the verdicts follow from checks and policy"),
        ("qualified", lambda: _qualified(report), "qualifications, where any are named, cover what was run"),
        ("sequence", lambda: _sequences(report), "wagers over publications, where there are any, follow from guesses"),
        ("review", lambda: _reviews(report), "what reviewers decided is in the log and in line with the policy"),
    )
    for name, run, right in checks:
        try:
            wrong = list(run())
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            wrong = [f"report.json or events.json is not of the shape of its schema ({type(error).__name__}: {error})"]
        findings.extend(Finding(name, False, line) for line in wrong)
        if not wrong:
            findings.append(Finding(name, True, right))


def _signer(report: dict[str, Any], key_id: str) -> Iterator[str]:
    if key_id not in [entry["key_id"] for entry in report["signatures"]]:
        yield "report.json names another signing key than the one that signed the bundle"


def _events(report: dict[str, Any], file: dict[str, Any]) -> Iterator[str]:
    if file.get("schema") != EVENTS_SCHEMA:
        yield f"events.json has the schema {file.get('schema')!r}; this verifier knows {EVENTS_SCHEMA}"
    if file["events"] != report["log_proof"]["events"]:
        yield "events.json and the log proof in report.json differ"
    yield from verify_events(file["events"])
    if not any(event["ref"] == report["request"]["id"] for event in file["events"]):
        yield "no event is about the request of this report"


def verify_events(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each event whose leaf hash or chain link is wrong. Gaps in the sequence are other requests' events."""
    last: Mapping[str, Any] | None = None
    for event in events:
        name = f"event {event['id']}"
        if leaf_hash(event) != event["leaf_hash"]:
            yield f"{name}: its content does not match its leaf hash"
        if chain_hash(event["previous_chain_hash"], event["leaf_hash"]) != event["chain_hash"]:
            yield f"{name}: its chain hash does not follow from the one before it"
        if last is not None and event["sequence"] <= last["sequence"]:
            yield f"{name}: its sequence {event['sequence']} is not above {last['sequence']}"
        before = last["chain_hash"] if last is not None else EMPTY_CHAIN
        if (
            event["sequence"] == (last["sequence"] if last is not None else 0) + 1
            and event["previous_chain_hash"] != before
        ):
            yield f"{name}: it does not continue the event before it"
        last = event


def leaf_hash(event: Mapping[str, Any]) -> str:
    """SHA-256(0x00 || RFC 8785 JSON of the event's content), the leaf hash of RFC 6962, in hex."""
    content = {key: event[key] for key in ("id", "kind", "at", "actor", "ref", "data")}
    return hashlib.sha256(b"\x00" + rfc8785.dumps(content)).hexdigest()


def chain_hash(previous: str, leaf: str) -> str:
    """SHA-256(previous chain hash || leaf hash) over raw bytes, in hex."""
    return hashlib.sha256(bytes.fromhex(previous) + bytes.fromhex(leaf)).hexdigest()


def _targets(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Targets with a published version."""
    yield from (target for target in report["targets"] if target["publication"] is not None)


def _against_log(report: dict[str, Any]) -> Iterator[str]:
    for target in _targets(report):
        events = [event for event in report["log_proof"]["events"] if event["ref"] == target["job_id"]]
        yield from (f"{target['model']}: {line}" for line in _job_against_log(target, events))


def _job_against_log(target: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[str]:
    """The policy was logged before the first attempt; each attempt and its verdict are in the log as reported."""
    proposed = {event["data"]["number"]: event for event in events if event["kind"] == "attempt.proposed"}
    judged = {event["data"]["number"]: event["data"] for event in events if event["kind"] == "attempt.judged"}
    planned = [event for event in events if event["kind"] == "job.planned"]
    first = min((event["sequence"] for event in proposed.values()), default=None)
    policy = target["policy"]["digest"]
    if first is None or not any(event["sequence"] < first and event["data"]["policy"] == policy for event in planned):
        yield f"the log does not show that the policy {policy} was fixed before the first attempt"
    for attempt in target["attempts"]:
        if attempt["verdict"] is None:
            continue
        name, number = f"attempt {attempt['number']}", attempt["number"]
        if number not in proposed or proposed[number]["data"]["digest"] != attempt["digest"]:
            yield f"{name}: the log does not hold a candidate with its digest"
        if number not in judged or judged[number]["verdict"] != attempt["verdict"]:
            yield f"{name}: the log does not hold its verdict {attempt['verdict']}"


def _versions(report: dict[str, Any]) -> Iterator[str]:
    from service.reports.reviews import published_attempts

    published = [event["data"] for event in report["log_proof"]["events"] if event["kind"] == "version.published"]
    for target in _targets(report):
        name, new, base = target["model"], target["lineage"]["new_version"], target["lineage"]["base_version"]
        passed = [attempt["digest"] for attempt in published_attempts(target)]
        if target["publication"]["version"] != new:
            yield f"{name}: the published version is not the new version of the lineage"
        if passed != [new["digest"]]:
            yield f"{name}: the new version's digest is not that of the attempt that passed"
        if base is not None and base["digest"] == new["digest"]:
            yield f"{name}: the new version is the old one"
        logged = [(data["number"], data["digest"]) for data in published if data["job"] == target["job_id"]]
        if logged != [(new["number"], new["digest"])]:
            yield f"{name}: the log does not hold the publication of version {new['number']} with its digest"


def _policy(report: dict[str, Any]) -> Iterator[str]:
    from service.verification.policy import policy_digest

    for target in _targets(report):
        policy = target["policy"]
        if policy_digest(policy["document"]) != policy["digest"]:
            yield f"{target['model']}: the policy's digest is not that of the policy in the report"


def _verdicts(report: dict[str, Any]) -> Iterator[str]:
    """Every verdict again, from the numbers and the policy; and the parts that a report on one model repeats."""
    from service.reports.reviews import verdict_faults

    for target in _targets(report):
        stated = [(attempt["verification"], f"attempt {attempt['number']}: ") for attempt in target["attempts"]]
        for evaluation, which in [(target["verification"], ""), *stated]:
            if evaluation is not None:
                yield from (f"{target['model']}: {which}{line}" for line in _judge_again(evaluation, target["policy"]))
        yield from (f"{target['model']}: {line}" for line in verdict_faults(target))
    if len(report["targets"]) == 1:
        shared = report.keys() & report["targets"][0].keys() - {"plots"}
        yield from (
            f"the report's {name} is not that of its only target"
            for name in sorted(shared)
            if report[name] != report["targets"][0][name]
        )


def _reviews(report: dict[str, Any]) -> Iterator[str]:
    from service.reports.reviews import review_faults

    for target in _targets(report):
        yield from (f"{target['model']}: {line}" for line in review_faults(target, report["log_proof"]["events"]))


def _qualified(report: dict[str, Any]) -> Iterator[str]:
    from service.reports.qualified import qualification_faults

    for target in _targets(report):
        faults = qualification_faults(target, report["log_proof"]["events"])
        yield from (f"{target['model']}: {line}" for line in faults)


def _judge_again(evaluation: dict[str, Any], policy: dict[str, Any]) -> Iterator[str]:
    from service.verification.language import margin_fault
    from service.verification.policy import Policy, margin_for
    from service.verification.schema import EVALUATION, Evaluation
    from service.verification.verdict import (
        CANARIES,
        CANARY_CONTROL,
        CANARY_RATE,
        CONTROL,
        MEMBERSHIP,
        REFERENCE,
        REFERENCE_CONTROL,
        disagreements,
    )

    read = Evaluation.model_validate(evaluation)
    fixed = Policy.model_validate(policy["document"]).verification
    yield from disagreements(read, fixed)
    if read.schema_id != EVALUATION:
        return
    if read.policy_digest != policy["digest"]:
        yield "the evaluation was made under another policy"
    margins = dict.fromkeys((MEMBERSHIP, CONTROL, REFERENCE, REFERENCE_CONTROL), fixed.auc_margin)
    margins |= {CANARIES: fixed.canary_margin, CANARY_CONTROL: fixed.canary_margin, CANARY_RATE: fixed.canary_rate}
    for check in read.checks:
        known = check.id in margins and check.estimate is not None
        if known and check.margin != margin_for(margins[check.id], check.n or 0):
            yield f"{check.id}: the margin {check.margin} is not the one of the policy for {check.n} records"
        fault = margin_fault(check, fixed)
        if fault is not None:
            yield f"{check.id}: {fault}"


def _sequences(report: dict[str, Any]) -> Iterator[str]:
    """The wager over publications again. The guesses of earlier versions are taken as stated: their own reports hold
    them."""
    from service.verification.sequential import GUESSES

    for target in _targets(report):
        told = target["verification"]
        if target.get("sequence") is None:
            if told["basis"] == "measurement" and told["metrics"].get(GUESSES):
                yield f"{target['model']}: guesses were made on planted records, and the wager over them is missing"
        else:
            yield from (f"{target['model']}: {line}" for line in _fold_again(target["sequence"], target))


def _fold_again(told: dict[str, Any], target: dict[str, Any]) -> Iterator[str]:
    from service.verification.sequential import CHANCE, GUESSES, RIGHT, fold

    alpha, steps = target["policy"]["document"]["verification"]["alpha"], told["steps"]
    if (told["null"], told["alpha"]) != (CHANCE, alpha):
        yield "the wager over publications has another null or level than one half and the policy's alpha"
    wagers = fold((step["right"], step["guesses"]) for step in steps)
    for step, wager in zip(steps, wagers, strict=True):
        derived = (wager.log_wealth, *wager.interval(alpha))
        stated = (step["log_wealth"], step["low"], step["high"])
        if not all(math.isclose(*pair, abs_tol=1e-9) for pair in zip(stated, derived, strict=True)):
            yield f"the wager after version {step['version']} does not follow from the guesses"
    if told["alarm"] != wagers[-1].alarm(alpha) or not math.isclose(told["peak"], wagers[-1].peak, abs_tol=1e-9):
        yield "the alarm of the wager over publications does not follow from the guesses"
    metrics, last = target["verification"]["metrics"], steps[-1]
    own = (target["lineage"]["new_version"]["number"], metrics.get(GUESSES, 0), metrics.get(RIGHT, 0))
    if (last["version"], last["guesses"], last["right"]) != own or last["attempts"] != len(target["attempts"]):
        yield "the last step of the wager over publications is not what the evaluation and the attempts say"
