"""The catalogue as callers see it, for the API and the command line alike."""

from typing import Any

from service.catalogue.methods import METHODS
from service.catalogue.metrics import METRICS


def list_methods() -> dict[str, Any]:
    """`{items, next_cursor, limit}` of the unlearning methods, each with the JSON Schema of its parameters."""
    return _listed(
        [
            {
                "name": spec.name,
                "kind": spec.kind,
                "tasks": list(spec.tasks),
                "needs": list(spec.needs),
                "summary": spec.summary,
                "guarantee": spec.guarantee,
                "source": spec.source,
                "parameters": spec.params.model_json_schema(),
            }
            for spec in METHODS
        ]
    )


def list_metrics() -> dict[str, Any]:
    """`{items, next_cursor, limit}` of the measurements."""
    return _listed(
        [
            {
                "name": spec.name,
                "role": spec.role,
                "direction": spec.direction,
                "needs": list(spec.needs),
                "summary": spec.summary,
            }
            for spec in METRICS
        ]
    )


def _listed(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"items": items, "next_cursor": None, "limit": max(1, len(items))}
