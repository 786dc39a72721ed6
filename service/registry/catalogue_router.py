"""GET /v1/methods and /v1/metrics. They are here because the catalogue itself, a layer below, knows no keys."""

from typing import Any

from fastapi import APIRouter, Depends

from service.auth.guards import require
from service.auth.http import problems
from service.registry.catalogue import list_methods, list_metrics

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[Depends(require())], responses=problems())


@router.get("/methods")
def read_methods() -> dict[str, Any]:
    """The unlearning methods that jobs can use."""
    return list_methods()


@router.get("/metrics")
def read_metrics() -> dict[str, Any]:
    """The measurements that verification can make."""
    return list_metrics()
