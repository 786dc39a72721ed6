"""The evidence bundle: one zip that a third party verifies with nothing else, its bytes fixed by its content."""

import json
from importlib.resources import files

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.reports.signing import public_pem, sign_files
from service.reports.verify import EVENTS_SCHEMA, SIGNED, pack


def build_bundle(report_json: bytes, report_pdf: bytes, key: Ed25519PrivateKey) -> bytes:
    """The zip of report, events, guide, public key and signature."""
    members = {
        "report.json": report_json,
        "report.pdf": report_pdf,
        "events.json": events_json(report_json),
        "public_key.pem": public_pem(key.public_key()),
        "VERIFY.md": files("service.reports").joinpath("verify_guide.txt").read_bytes(),
    }
    signature = sign_files(key, {name: members[name] for name in SIGNED})
    return pack({**members, "signature.json": rfc8785.dumps(signature) + b"\n"})


def events_json(report_json: bytes) -> bytes:
    """The audit events of a report as a file of their own, in RFC 8785 form."""
    events = json.loads(report_json)["log_proof"]["events"]
    return rfc8785.dumps({"schema": EVENTS_SCHEMA, "events": events}) + b"\n"
