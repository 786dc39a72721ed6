"""The HTTP application: routers, middleware, error handlers. `uvicorn --factory service.main:create_app`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread
from fastapi import Depends, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from sqlalchemy.exc import DataError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from service import database, logs, telemetry
from service.audit.router import router as audit_router
from service.auth.edge import BodyLimit, problem_response, tell_errors
from service.auth.guards import require
from service.auth.http import PROBLEM, PROBLEM_SCHEMA, problems
from service.auth.service import Remembered
from service.deletion import gauges as request_gauges
from service.deletion.router import router as deletion_router
from service.errors import (
    BadRequest,
    Invalid,
    LetheError,
    MethodNotAllowed,
    NotFound,
    Unavailable,
)
from service.jobs import gauges as job_gauges
from service.jobs.router import router as jobs_router
from service.logs import Receive, Scope, Send
from service.registry.catalogue_router import router as catalogue_router
from service.registry.router import router as models_router
from service.reports.router import router as reports_router
from service.settings import get_settings

_SUMMARY = "Makes trained models forget people, measures how well it worked and leaves evidence."


def create_app() -> FastAPI:
    """A new application; settings are read now, the database is opened at the first request."""
    settings = get_settings()
    logs.configure_logging(settings.log_level)
    app = FastAPI(title="Lethe", version="1", summary=_SUMMARY, lifespan=_lifespan, docs_url="/docs", redoc_url=None)
    app.state.remembered_keys = Remembered()
    for router in (deletion_router, reports_router, jobs_router, models_router, catalogue_router):
        app.include_router(router)
    # The log knows nothing of keys (it lies on the same layer), so its role is attached here.
    app.include_router(audit_router, dependencies=[Depends(require("auditor"))], responses=problems())
    _add_health(app)
    tell_errors(app)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(SQLAlchemyError, _on_database_error)
    app.add_middleware(BodyLimit, limit=settings.api.body_limit_bytes, advice="send it in parts")
    app.add_middleware(logs.RequestLog, answer_failure=_answer_failure, observe=telemetry.observe)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    # As many handlers at once as there are pooled connections: beyond that they would wait for each other anyway, and
    # more threads behind Python's lock only make the slowest answers slower.
    to_thread.current_default_thread_limiter().total_tokens = get_settings().api.pool_size
    withdrawals = [telemetry.add_source(gauges.read) for gauges in (request_gauges, job_gauges)]
    yield
    for withdraw in withdrawals:
        withdraw()
    database.close()


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    headers = getattr(error, "headers", None)
    if status == 404:
        return problem_response(NotFound("there is nothing at this address"), headers)
    if status == 405:
        # Starlette names the methods of one route; a path may have several.
        methods = request.app.openapi()["paths"].get(logs.route_of(request.scope), {})
        allowed = {"allow": ", ".join(method.upper() for method in methods)} if methods else headers
        return problem_response(MethodNotAllowed("this address does not answer to this method"), allowed)
    told = (
        LetheError("the request could not be answered") if status >= 500 else BadRequest("the request cannot be read")
    )
    body = told.problem() | {"status": status}
    return Response(json.dumps(body), status, headers, media_type=PROBLEM)


async def _on_database_error(_request: Request, error: Exception) -> Response:
    if isinstance(error, DataError):
        return problem_response(Invalid("a parameter holds a value that the database cannot store"))
    logs.log.error("database.failed", exception=logs.describe(error))
    if isinstance(error, OperationalError | PoolTimeoutError):
        return problem_response(Unavailable("the database does not answer; try again"))
    return problem_response(LetheError("the request could not be carried out; the log has the reason"))


async def _answer_failure(scope: Scope, receive: Receive, send: Send) -> None:
    error = LetheError("the request could not be carried out; the log has the reason")
    await problem_response(error)(scope, receive, send)


def _add_health(app: FastAPI) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], responses={503: problems(Unavailable)[503]})
    def readyz() -> dict[str, str]:
        """Whether the database can be reached and has the newest schema."""
        try:
            current = database.at_head()
        except SQLAlchemyError:
            raise Unavailable("the database cannot be reached") from None
        if not current:
            raise Unavailable("the database schema is not the newest; run `lethe db upgrade`")
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"], response_class=Response)
    def metrics() -> Response:
        """Prometheus metrics; no ids and nothing personal."""
        return Response(telemetry.expose(), media_type=telemetry.CONTENT_TYPE)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        schema["components"].setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
        app.openapi_schema = schema
    return app.openapi_schema
