"""The reference inference server: one model, `POST /predict` or `POST /v1/completions`, switching versions by itself.

Every answer, errors included, says in `Lethe-Model-Version` which version was current when the request came in; a
prediction is made by exactly that version. The server has no authentication of its own: put it behind what you have.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import torch
from fastapi import Depends, FastAPI, Request

from service.auth.http import PROBLEM, PROBLEM_SCHEMA, json_body, parse, takes
from service.errors import NotFound
from service.settings import get_settings
from workers.modeling.devices import resolve_device
from workers.serving.classify import predict
from workers.serving.complete import complete
from workers.serving.edge import add_edge, version_of
from workers.serving.loader import Served
from workers.serving.schemas import CompletionBody, PredictBody
from workers.serving.watcher import POLL_SECONDS, Watcher

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {"description": "An error", "content": {PROBLEM: {"schema": PROBLEM_SCHEMA}}}
}


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

    app = FastAPI(title=f"Lethe: {name}", version="1", lifespan=lifespan, redoc_url=None)
    _add_predictions(app, watcher)
    _add_status(app, watcher)
    add_edge(app, watcher)
    return app


def _add_predictions(app: FastAPI, watcher: Watcher) -> None:
    def of_task(request: Request, language: bool, other: str) -> Served:
        served = _served(request, watcher)
        if (served.pointer.task == "causal-lm") != language:
            raise NotFound(f"model {served.pointer.name!r} is for {served.pointer.task}: use POST {other}")
        return served

    @app.post("/predict", responses=_PROBLEMS, openapi_extra=takes(PredictBody))
    def predictions(request: Request, raw: Annotated[bytes, Depends(json_body)]) -> dict[str, Any]:
        """Classify images or texts."""
        served = of_task(request, language=False, other="/v1/completions")
        return {"predictions": predict(served, parse(PredictBody, raw)), **_identity(served)}

    @app.post("/v1/completions", responses=_PROBLEMS, openapi_extra=takes(CompletionBody))
    def completions(request: Request, raw: Annotated[bytes, Depends(json_body)]) -> dict[str, Any]:
        """Complete prompts (a subset of the OpenAI API)."""
        served = of_task(request, language=True, other="/predict")
        return complete(served, parse(CompletionBody, raw)) | _identity(served)


def _add_status(app: FastAPI, watcher: Watcher) -> None:
    # On the event loop: they answer while predictions fill the thread pool.
    @app.get("/healthz")
    async def healthz(request: Request) -> dict[str, Any]:
        """200 while a version is served, 503 otherwise."""
        _served(request, watcher)
        return {"status": "ok"}

    @app.get("/version")
    async def version(request: Request) -> dict[str, Any]:
        """Name, number, digest and precision of the version that answers."""
        served = _served(request, watcher)
        return _identity(served) | {"digest": served.pointer.digest, "precision": served.pointer.precision}


def _served(request: Request, watcher: Watcher) -> Served:
    served = version_of(request)
    if served is None:
        raise watcher.unavailable()
    return served


def _identity(served: Served) -> dict[str, Any]:
    return {"model": served.pointer.name, "version": served.number}
