"""Routes of reports: the report of a request in its forms, the evidence bundle, and the schema of report.json."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Response

from service.auth.guards import Caller
from service.auth.http import problems
from service.auth.service import Principal
from service.database import reading
from service.errors import Forbidden, NotFound, ReportNotReady
from service.reports import repository, service

router = APIRouter(tags=["reports"])

_REPORT = "/v1/deletion-requests/{request_id}/report"
_READERS = ("reviewer", "auditor")
_PROBLEMS = problems(NotFound, ReportNotReady)
_HTML_ONLY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads and runs nothing, and says so to the browser."""

RequestId = Annotated[str, Path(max_length=40)]


def _content(*forms: str) -> dict[str, Any]:
    kinds = {service.FORMS[form].partition(";")[0] for form in forms}
    described = {
        kind: {"schema": {"type": "object"} if kind.endswith("json") else {"type": "string", "format": "binary"}}
        for kind in sorted(kinds)
    }
    return {"description": "The report", "content": described}


@router.get(
    _REPORT, response_class=Response, responses={200: _content("json", "html", "pdf"), **_PROBLEMS}, name="read_report"
)
def read_report(
    request_id: RequestId, caller: Caller, accept: Annotated[str, Header(max_length=1000)] = "*/*"
) -> Response:
    """The report, as JSON, HTML or PDF by the Accept header; JSON where that leaves it open."""
    return _answer(request_id, caller, negotiate(accept), vary=True)


@router.get(_REPORT + ".{form}", response_class=Response, responses={200: _content("json", "html", "pdf"), **_PROBLEMS})
def read_report_as(request_id: RequestId, form: Literal["json", "html", "pdf"], caller: Caller) -> Response:
    """The report in the form that the suffix names."""
    return _answer(request_id, caller, form)


@router.get(_REPORT + "/bundle", response_class=Response, responses={200: _content("zip"), **_PROBLEMS})
def read_bundle(request_id: RequestId, caller: Caller) -> Response:
    """The evidence bundle: report, events, public key, signature and how to verify them, as a zip."""
    return _answer(request_id, caller, "zip")


@router.get("/v1/schemas/report")
def read_schema() -> dict[str, Any]:
    """The JSON Schema of report.json."""
    return service.read_schema()


def _answer(request_id: str, caller: Principal, form: str, *, vary: bool = False) -> Response:
    _check_access(request_id, caller)
    headers = {"Cache-Control": "private, no-cache"}
    if vary:
        headers["Vary"] = "Accept"
    if form == "html":
        headers["Content-Security-Policy"] = _HTML_ONLY
    if form in ("pdf", "zip"):
        kind = "attachment" if form == "zip" else "inline"
        headers["Content-Disposition"] = f'{kind}; filename="lethe-{request_id}.{form}"'
    return Response(service.read_form(request_id, form), media_type=service.FORMS[form], headers=headers)


def _check_access(request_id: str, caller: Principal) -> None:
    """Raises NotFound for what is not there, or is not the caller's to know of, and Forbidden for other roles."""
    if not caller.has((*_READERS, "submitter")):
        raise Forbidden("reports need the role reviewer or auditor, or submitter for one's own requests")
    with reading() as session:
        submitter = repository.submitter_of(session, request_id)
    if submitter is None or not (caller.has(_READERS) or submitter == caller.id):
        raise NotFound("there is no deletion request with this id")


def negotiate(accept: str) -> str:
    """The form that an Accept header prefers (RFC 9110, 12.5.1): json, html or pdf; json where it leaves it open."""
    offered = {"application/json": "json", "text/html": "html", "application/pdf": "pdf"}
    best, form = 0.0, "json"
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((_quality(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
        if kind in offered and quality > best:
            best, form = quality, offered[kind]
    return form


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
