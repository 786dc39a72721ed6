"""The outer edge that every HTTP application here has: a bound on bodies, and errors told as RFC 9457 problems.

Apart from `service.main`, so that serving predictions does not load the whole control plane.
"""

import json

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError

from service.auth.http import PROBLEM, faults_of
from service.errors import BodyTooLarge, LetheError
from service.logs import App, Message, Receive, Scope, Send


class BodyLimit:
    """Refuses bodies over the limit, by their announced length or as they stream in; `advice` says what to do then."""

    def __init__(self, app: App, limit: int, advice: str) -> None:
        self._app, self._limit, self._advice = app, limit, advice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await problem_response(self._error())(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise self._error()
            return message

        await self._app(scope, counted, send)

    def _error(self) -> LetheError:
        return BodyTooLarge(f"the body is over {self._limit} bytes; {self._advice}")


def problem_response(error: LetheError, headers: dict[str, str] | None = None) -> Response:
    """An RFC 9457 response."""
    if error.status == 401:
        headers = {"www-authenticate": "Bearer"} | (headers or {})
    if error.status == 503:
        headers = {"retry-after": "2"} | (headers or {})
    # What cannot be sent as it is (a client that is gone) has no standard status.
    status = error.status if error.status != 499 else 409
    return Response(json.dumps(error.problem() | {"status": status}), status, headers, media_type=PROBLEM)


def tell_errors(app: FastAPI) -> None:
    """Answer this project's errors, and parameters that do not fit, as problems."""
    app.add_exception_handler(LetheError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LetheError)  # noqa: S101 - registered for this class alone
    return problem_response(error)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    # The first part of a location says where the parameter is: query, path, header.
    return problem_response(faults_of([(fault["loc"][1:], fault["type"], fault["msg"]) for fault in faults]))
