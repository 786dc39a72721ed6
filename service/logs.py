"""Structured logs: one JSON object a line on standard error, with request and job ids bound once.

What never reaches a log: bodies, query strings, paths as they were typed (only the route's template), and messages of
foreign exceptions, since those may quote values. An exception is logged as its type and the places it passed.
"""

import logging
import re
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

import structlog

from service.errors import LetheError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_FRAMES = 12

log = structlog.get_logger(__name__)


def configure_logging(level: str = "INFO") -> None:
    """Route structlog and the standard library through one JSON renderer; other libraries speak from WARNING on."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Looked up for each line: who redirects standard error later (tests, daemons) means these lines too.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def _describe_exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    raised = event.pop("exc_info", None)
    error = sys.exc_info()[1] if raised is True else raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        event["exception"] = describe(error)
    return event


def describe(error: BaseException) -> dict[str, Any]:
    """Type and places of an exception; its message only where this project wrote it."""
    told: dict[str, Any] = {"type": type(error).__name__, "at": _places(error.__traceback__)}
    if isinstance(error, LetheError):
        told["detail"] = error.detail
    return told


def _places(trace: TracebackType | None) -> list[str]:
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno}:{code.co_name}")
        trace = trace.tb_next
    return places[-_FRAMES:]


class RequestLog:
    """ASGI middleware at the outer edge: binds the request id, logs one line, and answers what nobody caught.

    `answer_failure` turns an unexpected exception into a response; it gets no exception, so that it cannot quote it.
    `observe` is told method, route template, status and seconds of each answer.
    """

    def __init__(self, app: App, answer_failure: App, observe: Callable[[str, str, int, float], None]) -> None:
        self._app, self._answer_failure, self._observe = app, answer_failure, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, started = _request_id(scope), time.perf_counter()
        status = 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        structlog.contextvars.bind_contextvars(request=request_id)
        try:
            await self._app(scope, receive, tagged)
        except Exception:
            log.exception("http.failed")
            if not status:
                await self._answer_failure(scope, receive, tagged)
        finally:
            seconds, route = time.perf_counter() - started, route_of(scope)
            self._observe(scope["method"], route, status, seconds)
            log.info("http", method=scope["method"], route=route, status=status, ms=round(seconds * 1000, 1))
            structlog.contextvars.unbind_contextvars("request")


def route_of(scope: Scope) -> str:
    """The template of the route that matched, never the path itself."""
    return getattr(scope.get("route"), "path", None) or "unmatched"


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex
