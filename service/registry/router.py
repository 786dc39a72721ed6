"""GET /v1/models and below."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session

from service.auth.guards import require
from service.auth.http import problems
from service.auth.service import Principal
from service.database import clock, reading, transaction
from service.datasets.models import Dataset
from service.errors import Conflict, Gone, NotFound
from service.registry import service
from service.registry.directories import RECORD_IDS
from service.registry.models import Model, Version
from service.registry.schemas import model_view, version_view
from service.registry.standing import references_view

router = APIRouter(prefix="/v1/models", tags=["models"])

AnyKey = Depends(require())
Operator = Annotated[Principal, Depends(require("operator"))]


@router.get("", dependencies=[AnyKey], responses=problems())
def list_models() -> dict[str, Any]:
    """All registered models by name."""
    with reading() as session:
        items = [_model(session, model) for model in service.list_models(session)]
    return {"items": items, "next_cursor": None, "limit": max(1, len(items))}


@router.get("/{name}", dependencies=[AnyKey], responses=problems(NotFound))
def read_model(name: str) -> dict[str, Any]:
    """One model: what it serves, its data, its references, its policy."""
    with reading() as session:
        return _model(session, service.get_model(session, name))


def _model(session: Session, model: Model) -> dict[str, Any]:
    serving = session.get(Version, model.serving_version_id) if model.serving_version_id else None
    dataset = session.get_one(Dataset, model.dataset_id)
    return model_view(model, dataset, serving, references_view(session, model.id))


@router.get("/{name}/versions", dependencies=[AnyKey], responses=problems(NotFound))
def list_versions(name: str) -> dict[str, Any]:
    """All versions of a model, newest first."""
    with reading() as session:
        model = service.get_model(session, name)
        rows = service.versions(session, model.id)
    numbers = {row.id: row.number for row in rows}
    items = [version_view(model, row, numbers) for row in rows]
    return {"items": items, "next_cursor": None, "limit": max(1, len(items))}


@router.get("/{name}/versions/{number}", dependencies=[AnyKey], responses=problems(NotFound))
def read_version(name: str, number: int) -> dict[str, Any]:
    """One version with its manifest and its verification."""
    with reading() as session:
        model = service.get_model(session, name)
        version = service.get_version(session, model, number)
        return _version(session, model, version)


def _version(session: Session, model: Model, version: Version) -> dict[str, Any]:
    numbers = {row.id: row.number for row in service.versions(session, model.id)}
    return version_view(model, version, numbers, whole=True)


@router.post("/{name}/versions/{number}/activate", responses=problems(NotFound, Conflict))
def activate_version(name: str, number: int, principal: Operator) -> dict[str, Any]:
    """Serve a retired version again; refused when it may hold what the model was made to forget."""
    with transaction() as session:
        version = service.activate(session, name, number, principal.id, clock(session))
        return _version(session, service.get_model(session, name), version)


@router.get(
    "/{name}/versions/{number}/files/{path:path}",
    dependencies=[Depends(require("operator"))],
    response_class=FileResponse,
    responses=problems(NotFound, Conflict, Gone)
    | {200: {"description": "The file", "content": {"application/octet-stream": {}}}},
)
def read_file(name: str, number: int, path: str) -> FileResponse:
    """A file of the serving version."""
    with reading() as session:
        model = service.get_model(session, name)
        version = service.get_version(session, model, number)
    if version.state == "destroyed":
        raise Gone(f"version {number} of {name!r} has been destroyed")
    if version.id != model.serving_version_id:
        raise Conflict(f"version {number} of {name!r} is {version.state}; only the serving version is handed out")
    # The manifest decides, so that no path leads out of the version's directory.
    if path not in version.manifest.get("files", {}) or path == RECORD_IDS:
        raise NotFound("the version has no such file")
    digest = version.manifest["files"][path]
    headers = {"etag": f'"{digest}"', "lethe-model-version": str(number)}
    return FileResponse(Path(version.path) / path, media_type="application/octet-stream", headers=headers)
