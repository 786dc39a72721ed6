"""Weights that were judged by measurement are served as they were judged, whatever row or name they come by.

What an attack did not find in rounded weights it may find in others: other rounding serves another model. A directory
can be registered again beside the version that holds its judgement, with a file more or under another name, so weights
are known by the digests of their tensors and not by their version.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.catalogue.precisions import FULL
from service.errors import Conflict
from service.registry.models import Model, Version


def weights_of(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Digests (SHA-256 of the files) of the weights that a version's manifest lists."""
    listed: dict[str, str] = manifest.get("files", {})
    return frozenset(digest for name, digest in listed.items() if name.endswith(".safetensors"))


def holds(weights: frozenset[str], others: frozenset[str]) -> bool:
    """Whether all of the other weights are among these: files that nothing loads may lie beside them."""
    return bool(others) and others <= weights


def refuse_unjudged(session: Session, manifest: Mapping[str, Any], precision: str) -> None:
    """Raises Conflict where these weights were judged by measurement, and in none of the judgements in `precision`.

    Versions of all models count, also destroyed ones. Weights that an exact method made hold nothing to be brought
    back, and weights that no job has judged are served as their owner says.
    """
    weights = weights_of(manifest)
    found = [row for row in session.execute(_JUDGED) if holds(weights, weights_of({"files": row.files}))]
    measured = [row for row in found if row.basis == "measurement"]
    if len(measured) < len(found) or not measured or any((row.precision or FULL) == precision for row in measured):
        return
    last, served = measured[0], measured[0].precision or FULL
    raise Conflict(
        f"version {last.number} of {last.name!r} has these weights and was judged as it was served, in {served}; "
        f"in {precision} they would be served without having been judged: serve them in {served}, or let an exact "
        "job come first"
    )


_BASIS = Version.verification["basis"].as_string()
# Not whole rows: an evaluation is long, and there is one for each publication.
_JUDGED = (
    select(
        Version.number,
        Model.name,
        Version.manifest["files"].label("files"),
        _BASIS.label("basis"),
        Version.verification["serve_precision"].as_string().label("precision"),
    )
    .join(Model, Model.id == Version.model_id)
    .where(_BASIS.in_(("procedure", "measurement")))
    .order_by(Version.created_at.desc(), Version.number.desc())
)
