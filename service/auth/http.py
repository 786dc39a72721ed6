"""What the routes share: reading a JSON body, refusing what does not fit, and declaring errors in OpenAPI.

Bodies are read by hand rather than by FastAPI: a wrong content type is 415, malformed JSON is 400, everything else
that is wrong with a body is 422, and no error ever quotes a value.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.errors import (
    BodyTooLarge,
    Forbidden,
    Invalid,
    LetheError,
    MalformedBody,
    Unauthorized,
    UnsupportedMedia,
)

Body = TypeVar("Body", bound=BaseModel)

PROBLEM = "application/problem+json"
JSON = "application/json"

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457 problem details; `code` is stable.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def problems(*kinds: type[LetheError]) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: these errors, those of the key, and anything else as a problem object."""
    told: dict[int | str, dict[str, Any]] = {}
    declared: tuple[type[LetheError], ...] = (Unauthorized, Forbidden, *kinds)
    for kind in declared:
        told.setdefault(kind.status, _declared(kind.title))
    return told | {"default": _declared("Any other error")}


def body_problems(*kinds: type[LetheError]) -> dict[int | str, dict[str, Any]]:
    """The same for a route that reads a body."""
    return problems(MalformedBody, BodyTooLarge, UnsupportedMedia, Invalid, *kinds)


def _declared(title: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": title, "content": {PROBLEM: {"schema": schema}}}


def media_type(request: Request) -> str:
    """The content type of the request without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def body_of(*media_types: str) -> Callable[[Request], Coroutine[Any, Any, bytes]]:
    """A dependency that reads the raw body and raises UnsupportedMedia for another content type."""

    async def read(request: Request) -> bytes:
        if media_type(request) not in media_types:
            raise UnsupportedMedia(f"the body must have the content type {' or '.join(media_types)}")
        return await request.body()

    return read


json_body = body_of(JSON)


async def optional_json_body(request: Request) -> bytes:
    """The raw JSON body of a route that also works without one."""
    body = await request.body()
    if body and media_type(request) != JSON:
        raise UnsupportedMedia(f"the body must have the content type {JSON}")
    return body


def parse(model: type[Body], raw: bytes) -> Body:
    """The body as `model`. Raises MalformedBody for what is not JSON, and Invalid for what does not fit."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise explain(error) from None


def explain(error: ValidationError, start: str = "") -> LetheError:
    """The faults of a body or of parameters, without their values and without names that the caller chose."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return MalformedBody("the body is not valid JSON")
    return faults_of([(fault["loc"], fault["type"], fault["msg"]) for fault in faults], start)


def faults_of(faults: Sequence[tuple[Sequence[str | int], str, str]], start: str = "") -> Invalid:
    """Invalid from (location, kind, message) triples of pydantic."""
    told = [_fault(location, kind, message, start) for location, kind, message in faults]
    pointer, detail = told[0]
    return Invalid(f"{pointer or 'the body'}: {detail}", pointer=pointer, errors=told)


def _fault(location: Sequence[str | int], kind: str, message: str, start: str) -> tuple[str, str]:
    if kind == "extra_forbidden":
        # The name of an unknown field is the caller's text: it may itself be an identifier.
        return _pointer(location[:-1], start), "holds an unknown field; remove it"
    return _pointer(location, start), message.removeprefix("Value error, ")


def _pointer(location: Sequence[str | int], start: str) -> str:
    return start + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a model with its definitions put in place, as OpenAPI's `requestBody` wants it."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(part) for part in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def takes(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra=` of a route whose body is this model."""
    return {"requestBody": {"required": required, "content": {JSON: {"schema": schema_of(model)}}}}
