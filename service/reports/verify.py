"""The stand-alone verifier of evidence bundles and audit events.

It needs nothing of the service that wrote them: the standard library, `cryptography`, `rfc8785` and the pure package
`service.verification`, from which the verdict is derived again. No database, no settings, no network.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError, UnicodeError) as error:
        raise _Broken(f"the archive cannot be read: {error}") from error
    if _pack(members) != bundle:
        raise _Broken("the archive holds bytes beside its files; it is not as the service packs it")
    return members


def _pack(members: Mapping[str, bytes]) -> bytes:
    """The archive as service/reports/bundle.py writes it: stored, dated 1980, mode 0644."""
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


def _signature(
    members: Mapping[str, bytes], trusted_key: Ed25519PublicKey | None, findings: list[Finding]
) -> str:
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
        findings.append(Finding("signature", False, f"the signature does not fit the list of digests under key {identity}"))
    for name in SIGNED:
        matches = hashlib.sha256(members[name]).hexdigest() == digests[name]
        findings.append(Finding("digest", matches, f"{name} {'is as signed' if matches else 'was changed after signing'}"))
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
    return Finding("key", True, "the trusted key" if trusted else "the key in the bundle; compare it with one that you trust")


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
        if event["sequence"] == (last["sequence"] if last is not None else 0) + 1 and event["previous_chain_hash"] != before:
            yield f"{name}: it does not continue the event before it"
        last = event


def leaf_hash(event: Mapping[str, Any]) -> str:
    """SHA-256(0x00 || RFC 8785 JSON of the event's content), the leaf hash of RFC 6962, in hex."""
    content = {key: event[key] for key in ("id", "kind", "at", "actor", "ref", "data")}
    return hashlib.sha256(b"\x00" + rfc8785.dumps(content)).hexdigest()


def chain_hash(previous: str, leaf: str) -> str:
    """SHA-256(previous chain hash || leaf hash) over raw bytes, in hex."""
    return hashlib.sha256(bytes.fromhex(previous) + bytes.fromhex(leaf)).hexdigest()


def verify_chain(events: Iterable[Mapping[str, Any]], previous: str = EMPTY_CHAIN, size: int = 0) -> tuple[int, str, list[str]]:
    """Check consecutive events of the whole log; answers its size, its chain hash, and a line for each fault."""
    wrong = []
    for event in events:
        size += 1
        if event["sequence"] != size:
            wrong.append(f"event {event['id']}: sequence {event['sequence']} where {size} should be")
            size = int(event["sequence"])
        if leaf_hash(event) != event["leaf_hash"]:
            wrong.append(f"event {event['id']}: its content does not match its leaf hash")
        if chain_hash(previous, event["leaf_hash"]) != event["chain_hash"]:
            wrong.append(f"event {event['id']}: its chain hash does not follow from the event before it")
        previous = event["chain_hash"]
    return size, previous, wrong
