"""Which version of a model answers predictions and in which precision, read from the database and never written."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from service.database import reading
from service.errors import Conflict, Gone, NotFound
from service.registry.models import Model, Version


@dataclass(frozen=True)
class Pointer:
    """The version that the model's serving pointer names, and what its weights are rounded to."""

    name: str
    task: str
    version_id: str
    number: int
    digest: str
    path: Path
    precision: str


def read_pointer(name: str) -> Pointer:
    """The version to serve.

    Raises NotFound for an unknown model, Conflict where it serves no version, Gone where the version it points to
    is retired or destroyed.
    """
    # One statement, so one snapshot: between two of them a publication could move the pointer and retire the version.
    query = select(Model.task, Model.serve_precision, Version).outerjoin(
        Version, Version.id == Model.serving_version_id
    )
    with reading() as session:
        row = session.execute(query.where(Model.name == name)).one_or_none()
    if row is None:
        raise NotFound(f"there is no model {name!r}: see `lethe models list`")
    task, precision, version = row
    if version is None:
        raise Conflict(f"model {name!r} serves no version: register one with `lethe models register`")
    if version.state in ("retired", "destroyed"):
        raise Gone(f"version {version.number} of model {name!r} is {version.state} and is not served")
    if version.state != "serving":
        raise Conflict(f"version {version.number} of model {name!r} is {version.state}: it has to be published first")
    return Pointer(name, task, version.id, version.number, version.digest, Path(version.path), precision)
