"""Which version of a model answers predictions, read from the database and never written."""

from dataclasses import dataclass
from pathlib import Path

from service.database import reading
from service.errors import Conflict, Gone
from service.registry.repository import get_model, serving_version


@dataclass(frozen=True)
class Pointer:
    """The version that the model's serving pointer names."""

    name: str
    task: str
    version_id: str
    number: int
    digest: str
    path: Path


def read_pointer(name: str) -> Pointer:
    """The version to serve.

    Raises NotFound for an unknown model, Conflict where it serves no version, Gone where the version it points to
    is retired or destroyed.
    """
    with reading() as session:
        model = get_model(session, name)
        version = serving_version(session, model)
        if version.state in ("retired", "destroyed"):
            raise Gone(f"version {version.number} of model {name!r} is {version.state} and is not served")
        if version.state != "serving":
            raise Conflict(f"version {version.number} of model {name!r} is {version.state}: publish it first")
        return Pointer(name, model.task, version.id, version.number, version.digest, Path(version.path))
