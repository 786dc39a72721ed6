"""The reference inference server: one model, `POST /predict` or `POST /v1/completions`, switching versions by itself.

Every answer, errors included, says in `Lethe-Model-Version` which version was current when the request came in; a
prediction is made by exactly that version. The server has no authentication of its own: put it behind what you have.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import torch
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service import database, logs
from service.auth.http import body_problems, faults_of, json_body, parse, takes
from service.errors import BadRequest, LetheError, MethodNotAllowed, NotFound, Unavailable
from service.logs import App, Message, Receive, Scope, Send
from service.main import BodyLimit, problem_response
from service.settings import get_settings
from workers.modeling.devices import resolve_device
from workers.serving.classify import predict
from workers.serving.complete import complete
from workers.serving.loader import Served
from workers.serving.schemas import CompletionBody, PredictBody
from workers.serving.watcher import POLL_SECONDS, Watcher

HEADER = b"lethe-model-version"
BODY_LIMIT = 16 << 20
_STATE = "served"


def make_watcher(name: str, poll_seconds: float = POLL_SECONDS) -> Watcher:
    """The watcher of a model on the device and with the threads that the settings name, its first version loaded.

    Raises NotFound, Conflict, Gone or BadModel where there is nothing that may be served.
    """
    settings = get_settings()
    torch.set_num_threads(settings.threads)
    watcher = Watcher(name, resolve_device(settings.device), poll_seconds)
    watcher.start()
    return watcher


def create_app(name: str, watcher: Watcher) -> FastAPI:
    """The application around a started watcher; leaving its lifespan stops the watcher."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        watcher.stop()
        database.dispose()

    app = FastAPI(title=f"Lethe: {name}", version="1", lifespan=lifespan, redoc_url=None)
    app.add_exception_handler(LetheError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    _add_predictions(app, watcher)
    _add_status(app)
    app.add_middleware(BodyLimit, limit=BODY_LIMIT)
    app.add_middleware(logs.RequestLog, answer_failure=_answer_failure, observe=_observe)
    app.add_middleware(VersionHeader, watcher=watcher)
    return app


class VersionHeader:
    """Takes the current version once per request, for the route to answer with, and names it in the answer."""

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


def _served(request: Request, watcher: Watcher) -> Served:
    served: Served | None = request.scope["state"][_STATE]
    return served or watcher.require()


def _add_predictions(app: FastAPI, watcher: Watcher) -> None:
    def of_task(request: Request, language: bool, other: str) -> Served:
        served = _served(request, watcher)
        if (served.pointer.task == "causal-lm") != language:
            raise NotFound(f"model {served.pointer.name!r} is for {served.pointer.task}: use POST {other}")
        return served

    @app.post("/predict", responses=_told(), openapi_extra=takes(PredictBody))
    def predictions(request: Request, raw: Annotated[bytes, Depends(json_body)]) -> dict[str, Any]:
        """Classify images or texts."""
        served = of_task(request, language=False, other="/v1/completions")
        return {"predictions": predict(served, parse(PredictBody, raw)), **_identity(served)}

    @app.post("/v1/completions", responses=_told(), openapi_extra=takes(CompletionBody))
    def completions(request: Request, raw: Annotated[bytes, Depends(json_body)]) -> dict[str, Any]:
        """Complete prompts (a subset of the OpenAI API)."""
        served = of_task(request, language=True, other="/predict")
        return complete(served, parse(CompletionBody, raw)) | _identity(served)


def _add_status(app: FastAPI) -> None:
    # Neither waits for the thread pool, which predictions may fill.
    @app.get("/healthz")
    async def healthz(request: Request) -> Response:
        """200 while a version is served, 503 otherwise."""
        if request.scope["state"][_STATE] is None:
            return problem_response(Unavailable("no version is served"))
        return Response('{"status": "ok"}', media_type="application/json")

    @app.get("/version")
    async def version(request: Request) -> Response:
        """Name, number and digest of the version that answers."""
        served: Served | None = request.scope["state"][_STATE]
        if served is None:
            return problem_response(Unavailable("no version is served"))
        from fastapi.responses import JSONResponse

        return JSONResponse(_identity(served) | {"digest": served.pointer.digest})


def _identity(served: Served) -> dict[str, Any]:
    return {"model": served.pointer.name, "version": served.number}


def _told() -> dict[int | str, dict[str, Any]]:
    # The key's errors are declared with the others, but this server has no keys.
    told = body_problems(NotFound, Unavailable)
    return {status: answer for status, answer in told.items() if status not in (401, 403)}


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LetheError)  # noqa: S101 - registered for this class alone
    return problem_response(error)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    if status == 404:
        return problem_response(NotFound("there is nothing here: POST /predict or /v1/completions"))
    if status == 405:
        return problem_response(MethodNotAllowed("this address does not answer to this method"))
    return problem_response(BadRequest("the request cannot be read"))


async def _on_invalid(_request: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    return problem_response(faults_of([(fault["loc"][1:], fault["type"], fault["msg"]) for fault in faults]))


async def _answer_failure(scope: Scope, receive: Receive, send: Send) -> None:
    await problem_response(LetheError("the request could not be answered; the log has the reason"))(scope, receive, send)


def _observe(method: str, route: str, status: int, seconds: float) -> None:
    """No metrics here: the reference server is scraped through the service's own."""
