"""Many requests in one call: each line is answered by itself, and one that is bad never fails its neighbours."""

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.auth.http import parse
from service.auth.service import Principal
from service.deletion import service
from service.deletion.schemas import CreateRequest
from service.errors import BodyTooLarge, LetheError, MalformedBody, Unavailable
from service.settings import get_settings

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_CHUNK = 100

log = structlog.get_logger(__name__)

Result = dict[str, Any]
Line = tuple[int, bytes]


def create_batch(lines: list[Line], principal: Principal, key: str | None) -> list[Result]:
    """A result for each line, in order: `{line, status, request}` or `{line, status, error}`.

    With an Idempotency-Key each line has a key of its own, made of the key and its number.
    """
    results: dict[int, Result] = {}
    good: list[tuple[int, CreateRequest]] = []
    for number, line in lines:
        try:
            body = parse(CreateRequest, line)
            service.check(body, principal)
        except LetheError as error:
            results[number] = _failed(number, error)
        else:
            good.append((number, body))
    if key is not None:
        for number, body in good:
            results[number] = _one(number, body, principal, _line_key(key, number))
    else:
        for start in range(0, len(good), _CHUNK):
            results |= _chunk(good[start : start + _CHUNK], principal)
    return [results[number] for number in sorted(results)]


def _line_key(key: str, number: int) -> str:
    """A key for each line; its prefix cannot be sent in a header, so no single request collides with it."""
    return f"\x1f{sha256(key.encode()).hexdigest()}#{number}"


def _chunk(good: list[tuple[int, CreateRequest]], principal: Principal) -> dict[int, Result]:
    try:
        made = service.create_many([body for _, body in good], principal)
    except (LetheError, SQLAlchemyError):
        # Something hit the chunk as a whole: alone, each line gets its own answer.
        return {number: _one(number, body, principal, None) for number, body in good}
    return {number: _accepted(number, request) for (number, _), request in zip(good, made, strict=True)}


def _one(number: int, body: CreateRequest, principal: Principal, key: str | None) -> Result:
    try:
        return _accepted(number, service.create(body, principal, key).request)
    except LetheError as error:
        return _failed(number, error)
    except SQLAlchemyError as error:
        log.warning("batch.line_failed", line=number, reason=type(error).__name__)
        return _failed(number, Unavailable("the request could not be stored; send this line again"))


def _accepted(number: int, request: dict[str, Any]) -> Result:
    return {"line": number, "status": 202, "request": request}


def _failed(number: int, error: LetheError) -> Result:
    return {"line": number, "status": error.status, "error": error.problem()}


def split(raw: bytes, media_type: str) -> list[Line]:
    """The requests of a batch body, each with its number, counted from 1.

    That is the line of NDJSON (blank ones hold no request, but count, so that the number is found in the file that was
    sent), or the place in a JSON array. Raises MalformedBody, or BodyTooLarge over the limit of requests.
    """
    found = enumerate(raw.splitlines() if media_type in NDJSON else _elements(raw), 1)
    lines = [(number, line) for number, line in found if line.strip()]
    limit = get_settings().api.batch_limit
    if len(lines) > limit:
        raise BodyTooLarge(f"a batch holds at most {limit} requests; send the rest in another one")
    if not lines:
        raise MalformedBody("the batch holds no requests")
    return lines


def _elements(raw: bytes) -> Iterator[bytes]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise MalformedBody("the body is not valid JSON") from None
    if not isinstance(content, list):
        raise MalformedBody("the body must be a JSON array; NDJSON has the content type application/x-ndjson")
    for element in content:
        yield json.dumps(element).encode()
