"""What callers see of models and versions."""

from typing import Any

from service.audit.service import timestamp
from service.datasets.models import Dataset
from service.registry.models import Model, Version


def model_view(model: Model, dataset: Dataset, serving: Version | None, references: dict[str, Any]) -> dict[str, Any]:
    """The model object of the API; `references` as of `standing.references_view`."""
    return {
        "name": model.name,
        "task": model.task,
        "serve_precision": model.serve_precision,
        "serving": {"number": serving.number, "digest": serving.digest} if serving else None,
        "dataset": {
            "digest": dataset.digest,
            "holdout_digest": dataset.holdout_digest,
            "records": dataset.records,
            "subjects": dataset.subjects,
            "holdout_records": dataset.holdout_records,
            "identifier_types": sorted({"subject_id", *dataset.identifiers}),
        },
        "references": references,
        "policy": model.policy,
        "policy_digest": model.policy_digest,
        "created_at": timestamp(model.created_at),
        "links": {"self": f"/v1/models/{model.name}", "versions": f"/v1/models/{model.name}/versions"},
    }


def version_view(model: Model, version: Version, numbers: dict[str, int], *, whole: bool = False) -> dict[str, Any]:
    """The version object; `whole` adds manifest and verification. `numbers` maps version ids to numbers."""
    verification = version.verification or {}
    link = f"/v1/models/{model.name}/versions/{version.number}"
    view: dict[str, Any] = {
        "model": model.name,
        "number": version.number,
        "digest": version.digest,
        "state": version.state,
        "parent": numbers.get(version.parent_id) if version.parent_id else None,
        "method": version.method,
        "job_id": version.job_id,
        "bytes": version.manifest.get("bytes"),
        "verdict": verification.get("verdict"),
        "grade": verification.get("grade"),
        "created_at": timestamp(version.created_at),
        "published_at": timestamp(version.published_at) if version.published_at else None,
        "retired_at": timestamp(version.retired_at) if version.retired_at else None,
        "destroy_by": timestamp(version.destroy_by) if version.destroy_by else None,
        "destroyed_at": timestamp(version.destroyed_at) if version.destroyed_at else None,
        "links": {"self": link, "files": f"{link}/files/"},
    }
    if whole:
        view |= {"files": version.manifest.get("files", {}), "training": version.manifest.get("training")}
        view["verification"] = version.verification
    return view
