"""The outer edge of the inference server: the version is chosen once per request, bodies are bounded, errors are told.

Kept apart from `service.main`, so that serving predictions does not load the whole control plane.
"""

import json

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service import logs
from service.auth.http import PROBLEM, faults_of
from service.errors import BadRequest, BodyTooLarge, LetheError, MethodNotAllowed, NotFound
from service.logs import App, Message, Receive, Scope, Send
from workers.serving.loader import Served
from workers.serving.watcher import Watcher

HEADER = b"lethe-model-version"
BODY_LIMIT = 16 << 20
_STATE = "served"
_STATUS_ERRORS: dict[int, LetheError] = {
    404: NotFound("there is nothing at this address: POST /predict or /v1/completions"),
    405: MethodNotAllowed("this address does not answer to this method"),
}


class VersionOfRequest:
    """Takes the current version once, for the route to answer with, and names it in the answer."""

    def __init__(self, app: App, watcher: Watcher) -> None:
        self._app, self._watcher = app, watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        served = self._watcher.current
        scope.setdefault("state", {})[_STATE] = served

        async def named(message: Message) -> None:
            if served is not None and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (HEADER, str(served.number).encode())]
            await send(message)

        await self._app(scope, receive, named)


class BodyLimit:
    """Refuses bodies over `BODY_LIMIT` bytes as they stream in."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > BODY_LIMIT:
                raise BodyTooLarge(f"the body is over {BODY_LIMIT} bytes; send fewer instances at a time")
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)


def version_of(request: Request) -> Served | None:
    """The version that this request is answered with."""
    served: Served | None = request.scope["state"][_STATE]
    return served


def add_edge(app: FastAPI, watcher: Watcher) -> None:
    """Put error handlers and middleware on the application."""
    app.add_exception_handler(LetheError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_middleware(BodyLimit)
    app.add_middleware(logs.RequestLog, answer_failure=_answer_failure, observe=_observe)
    app.add_middleware(VersionOfRequest, watcher=watcher)


def problem_response(error: LetheError) -> Response:
    """An RFC 9457 response."""
    headers = {"retry-after": "2"} if error.status == 503 else None
    return Response(json.dumps(error.problem()), error.status, headers, media_type=PROBLEM)


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LetheError)  # noqa: S101 - registered for this class alone
    return problem_response(error)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 400)
    return problem_response(_STATUS_ERRORS.get(status, BadRequest("the request cannot be read")))


async def _on_invalid(_request: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    return problem_response(faults_of([(fault["loc"][1:], fault["type"], fault["msg"]) for fault in faults]))


async def _answer_failure(scope: Scope, receive: Receive, send: Send) -> None:
    error = LetheError("the request could not be answered; the log has the reason")
    await problem_response(error)(scope, receive, send)


def _observe(method: str, route: str, status: int, seconds: float) -> None:
    """No metrics: a reference server is watched through its log."""
