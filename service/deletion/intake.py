"""From a body to a draft: everything that can be refused is refused here, before anything is written. No database."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

from service.auth.service import Principal
from service.database import new_id
from service.deletion.models import DeletionRequest, RequestTarget
from service.deletion.regulations import find_regulation
from service.deletion.schemas import CreateRequest, Identifier, request_view
from service.errors import BadRequest, EmptySubject, Invalid, LetheError, UnknownModel
from service.registry.service import IntakeModel
from service.settings import get_settings
from service.subjects import vault
from service.subjects.identifiers import normalise, pseudonym, subject_pseudonym

_CLOCK_SKEW = timedelta(seconds=60)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Draft:
    """A request that is ready to be written: rows by table, and the answer that its caller gets."""

    request: dict[str, Any]
    targets: list[dict[str, Any]]
    pseudonyms: list[str]
    event: tuple[str, str, dict[str, Any]]
    """Kind, ref, data."""
    all_models: frozenset[str] | None
    """Ids of the models that "all" meant when the draft was made, or None when the caller named them."""

    @property
    def id(self) -> str:
        """Id of the request."""
        return str(self.request["id"])

    @property
    def accepted(self) -> bool:
        """Whether no person has to approve it first."""
        return bool(self.request["status"] == "accepted")

    def view(self) -> dict[str, Any]:
        """The request object, from values that are known already."""
        blank = dict.fromkeys(("stage", "reason", "extended_at", "completed_at"))
        row = cast("DeletionRequest", SimpleNamespace(**blank, **self.request))
        empty = dict.fromkeys(("job_id", "outcome", "records", "base_version", "new_version", "verdict", "grade"))
        targets = [cast("RequestTarget", SimpleNamespace(**empty | target)) for target in self.targets]
        return request_view(row, targets, self.request["created_at"])


def draft(body: CreateRequest, principal: Principal, models: Mapping[str, IntakeModel], now: datetime) -> Draft:
    """Check a body against the registered models. Raises Invalid and its kinds, with a pointer and without values."""
    regulation = find_regulation(body.regulation)
    received_at = _received(body.received_at, now)
    chosen = _choose(body.models, models)
    identifiers = _identifiers(body.subject.identifiers, chosen)
    _check_callback(body.callback_url)
    request_id = new_id("req")
    pseudonyms = [pseudonym(each["type"], each["value"], each["format"]) for each in identifiers]
    sealed, data_key = _seal(body, identifiers, request_id)
    due_at = regulation.due_at(received_at)
    status = "pending" if any(model.approval for model in chosen) else "accepted"
    request = {
        "id": request_id,
        "status": status,
        "regulation": regulation.name,
        "external_id": body.external_id,
        "submitted_by": principal.id,
        "pseudonym": subject_pseudonym(pseudonyms),
        "sealed": sealed,
        "data_key": data_key,
        "callback_url": body.callback_url,
        "cancellable": True,
        "progress": 0.0,
        "attempts": 0,
        "created_at": now,
        "received_at": received_at,
        "acknowledged_at": now,
        "due_at": due_at,
    }
    targets = [
        {"id": new_id("tgt"), "request_id": request_id, "model_id": model.id, "model_name": model.name}
        for model in chosen
    ]
    event = {
        "regulation": regulation.name,
        "models": [model.id for model in chosen],
        "identifier_types": sorted({each["type"] for each in identifiers}),
        "due_at": due_at.isoformat(timespec="seconds"),
    }
    kind = "request.accepted" if status == "accepted" else "request.received"
    everything = frozenset(model.id for model in chosen) if body.models is None else None
    return Draft(request, targets, pseudonyms, (kind, request_id, event), everything)


def _received(given: datetime | None, now: datetime) -> datetime:
    if given is None:
        return now
    try:
        received_at = given.astimezone(UTC)
    except OverflowError:
        received_at = _EARLIEST - timedelta(days=1)
    if received_at < _EARLIEST:
        raise Invalid("received_at lies before the year 2000", pointer="/received_at")
    if received_at > now + _CLOCK_SKEW:
        raise Invalid("received_at lies in the future", pointer="/received_at")
    return min(received_at, now)


def _choose(names: list[str] | None, models: Mapping[str, IntakeModel]) -> list[IntakeModel]:
    if names is None:
        if not models:
            raise UnknownModel("no model is registered; register one with `lethe models register`", pointer="/models")
        return list(models.values())
    for place, name in enumerate(names):
        if name not in models:
            raise UnknownModel("a model of this name is not registered", pointer=f"/models/{place}")
    return [models[name] for name in dict.fromkeys(names)]


def _identifiers(given: list[Identifier], models: list[IntakeModel]) -> list[dict[str, str]]:
    if not given:
        raise EmptySubject("the subject has no identifiers", pointer="/subject/identifiers")
    known = frozenset().union(*(model.identifier_types for model in models))
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for place, each in enumerate(given):
        try:
            value = normalise(each.type, each.value, each.format, known=known)
        except LetheError as error:
            raise type(error)(error.detail, pointer=f"/subject/identifiers/{place}") from None
        found[each.type, value, each.format] = {"type": each.type, "value": value, "format": each.format}
    return list(found.values())


def _check_callback(url: str | None) -> None:
    if url is None:
        return
    schemes = ("https", "http") if get_settings().webhooks.allow_private else ("https",)
    try:
        parts = urlsplit(url)
        fine = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        fine = False
    if not fine or any(character.isspace() for character in url):
        raise Invalid(
            f"callback_url must be an absolute {' or '.join(schemes)} URL without credentials", pointer="/callback_url"
        )


def _seal(body: CreateRequest, identifiers: list[dict[str, str]], request_id: str) -> tuple[bytes, bytes]:
    payload = {"identifiers": identifiers, "identity": body.identity, "note": body.note}
    try:
        return vault.seal(payload, request_id)
    except ValueError:  # a number of thousands of digits
        raise Invalid("identity holds a value that cannot be stored", pointer="/identity") from None


def fingerprint(body: CreateRequest) -> str:
    """Keyed digest of what a body says, whatever the order of its keys; it tells nothing about the person."""
    content = json.dumps(body.model_dump(), sort_keys=True, separators=(",", ":"), default=str)
    return pseudonym("idempotency", content)


def parse_idempotency_key(header: str | None) -> str | None:
    """The key of an Idempotency-Key header: a quoted string (RFC 9651) or a bare token. Raises BadRequest."""
    if header is None:
        return None
    key = header.strip()
    if key.startswith('"'):
        match = re.fullmatch(r'"((?:[^"\\]|\\["\\])*)"', key)
        key = re.sub(r"\\(.)", r"\1", match[1]) if match else ""
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise BadRequest("Idempotency-Key must be 1 to 255 printable characters, in quotes or bare")
    return key
