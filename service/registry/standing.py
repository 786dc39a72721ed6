"""Where a model's reference pool stands: in short for whoever lists models, as figures for whoever follows the pool."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any

from sqlalchemy.orm import Session

from service.database import clock
from service.registry import pools
from service.registry.models import ReferenceMember, ReferencePool

_TABLES_SHARE = 0.02
"""Of the bar: planning and tables, beside the members."""


@dataclass(frozen=True)
class Rates:
    """Workers at it, seconds a member takes (None: not known yet), members' worth of training left."""

    workers: int
    seconds: float | None
    left: float

    @property
    def eta(self) -> float | None:
        """Seconds until the last member; None while unknown."""
        return None if self.seconds is None else self.left * self.seconds / max(1, self.workers)


def rates_of(members: Sequence[ReferenceMember], count: int, now: datetime) -> Rates:
    """How fast the `count` members of a pool get trained, by those that are trained or being trained."""
    running = [member for member in members if member.state == "running" and (member.lease_until or now) > now]
    timed = [member.seconds for member in members if member.seconds is not None]
    if not timed:
        timed = [
            (now - member.started_at).total_seconds() / member.progress
            for member in running
            if member.started_at is not None and member.progress > 0
        ]
    left = count - done_of(members) - sum(member.progress for member in running)
    return Rates(len(running), fmean(timed) if timed else None, left)


def done_of(members: Sequence[ReferenceMember]) -> int:
    """How many are trained and free of deleted people."""
    return sum(member.state == "ready" for member in members)


def sides_of(members: Sequence[ReferenceMember]) -> dict[str, int]:
    """How many members each side has; none before the halves are drawn."""
    return {side: sum(member.side == side for member in members) for side in ("method", "gate")}


def share_of(pool: ReferencePool, left: float) -> float:
    """How much of the pool is done (0..1), `left` members' worth of training being left."""
    return 1.0 if pool.state == "ready" else round((1 - _TABLES_SHARE) * (1 - left / pool.count), 4)


def references_view(session: Session, model_id: str) -> dict[str, Any]:
    """The object `references` of a model; its state is "none" where the model has no pool, or only one that has ended.

    `count` is how many references it has or will have, `done` how many of them are trained, `progress` lies in 0..1.
    """
    pool = pools.live_pool(session, model_id)
    if pool is None:
        return {"state": "none", "count": 0, "done": 0, "progress": 0.0, "sides": sides_of([])}
    members = pools.members_of(session, pool.id)
    return {
        "state": pool.state,
        "count": pool.count,
        "done": done_of(members),
        "progress": share_of(pool, rates_of(members, pool.count, clock(session)).left),
        "sides": sides_of(members),
    }
