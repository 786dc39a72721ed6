"""The stages of a job: their order, their queue, and the share of the bar each one fills."""

from service.queue import QUEUE_CPU, QUEUE_GPU

STAGES = ("resolve", "plan", "unlearn", "verify", "publish", "attest", "notify")
HEAVY = frozenset({"unlearn", "verify"})
"""Stages that load weights: they run on the gpu queue, each in a fresh process."""

AFTER_PUBLICATION = frozenset({"attest", "notify"})
"""Stages that can only be tried again: the new version serves already."""

_SHARES = {
    "resolve": (0.0, 0.02),
    "plan": (0.02, 0.05),
    "unlearn": (0.05, 0.65),
    "verify": (0.65, 0.90),
    "publish": (0.90, 0.94),
    "attest": (0.94, 0.98),
    "notify": (0.98, 1.0),
}


def queue_of(stage: str) -> str:
    """The queue whose workers run this stage."""
    return QUEUE_GPU if stage in HEAVY else QUEUE_CPU


def overall_progress(stage: str, fraction: float) -> float:
    """Map progress inside a stage (0..1) to progress of the job (0..1)."""
    start, end = _SHARES[stage]
    return round(start + (end - start) * min(max(fraction, 0.0), 1.0), 4)
