"""Measurements that a candidate's method was trained against: they say nothing about what it made."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.catalogue.methods import METHODS
from service.errors import BadModel
from service.verification.schema import Check
from workers.modeling.training_record import read_record


def opposed_by(candidate_dir: Path) -> frozenset[str]:
    """Names of checks and metrics that the method of the candidate's training record opposes; none without a record."""
    try:
        record = read_record(candidate_dir)
    except BadModel:
        return frozenset()  # provenance says so
    if record is None or record.unlearning is None:
        return frozenset()
    made_by = record.unlearning.method
    return frozenset(name for spec in METHODS if spec.name == made_by for name in spec.opposes)


def barred(checks: Sequence[Check], opposed: Collection[str]) -> list[Check]:
    """The checks, those opposed without their figures: what was trained against is not measured any more."""
    nothing = {"estimate": None, "ci": None, "ci95": None, "p_value": None, "smallest_detectable": None}
    told = "the method was trained against this very attack, which can show nothing of its candidate"
    return [check.model_copy(update=nothing | {"reason": told}) if check.id in opposed else check for check in checks]


def allowed(metrics: Mapping[str, Any], opposed: Collection[str]) -> dict[str, Any]:
    """The metrics without those opposed, so that no guess on canaries it was trained against enters the wager."""
    return {name: value for name, value in metrics.items() if name not in opposed}
