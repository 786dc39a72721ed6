"""The outer edge of the inference server: it names the version once per request, bounds bodies, tells errors."""

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from service import logs
from service.auth.edge import BodyLimit, problem_response, tell_errors
from service.errors import BadRequest, LetheError, MethodNotAllowed, NotFound
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


def version_of(request: Request) -> Served | None:
    """The version that this request is answered with."""
    served: Served | None = request.scope["state"][_STATE]
    return served


def add_edge(app: FastAPI, watcher: Watcher) -> None:
    """Put error handlers and middleware on the application."""
    tell_errors(app)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_middleware(BodyLimit, limit=BODY_LIMIT, advice="send fewer instances at a time")
    app.add_middleware(logs.RequestLog, answer_failure=_answer_failure, observe=_observe)
    app.add_middleware(VersionOfRequest, watcher=watcher)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 400)
    return problem_response(_STATUS_ERRORS.get(status, BadRequest("the request cannot be read")))


async def _answer_failure(scope: Scope, receive: Receive, send: Send) -> None:
    error = LetheError("the request could not be answered; the log has the reason")
    await problem_response(error)(scope, receive, send)


def _observe(method: str, route: str, status: int, seconds: float) -> None:
    """No metrics: a reference server is watched through its log."""
