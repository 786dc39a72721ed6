"""Where a pool stands, for people and programs that follow it."""

from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.audit.service import timestamp
from service.database import clock
from service.registry import pools
from service.registry.models import Model, ReferenceMember, ReferencePool

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


def view(session: Session, pool_id: str) -> dict[str, Any]:
    """The pool as `lethe models prepare --json` prints it."""
    pool = session.get_one(ReferencePool, pool_id)
    members, now = pools.members_of(session, pool_id), clock(session)
    done = sum(member.state == "ready" for member in members)
    rates = _rates(members, pool.count, now)
    active = pool.state in pools.ACTIVE
    return {
        "schema": "lethe/references-state/1",
        "id": pool.id,
        "model": session.scalar(select(Model.name).where(Model.id == pool.model_id)),
        "state": pool.state,
        "count": pool.count,
        "strategy": pool.strategy,
        "reserved": pool.reserved,
        "seed": pool.seed,
        "generation": pool.generation,
        "path": pool.path,
        "sides": {side: sum(member.side == side for member in members) for side in ("method", "gate")},
        "done": done,
        "stale": sum(member.state in ("stale", "destroyed") for member in members),
        "workers": rates.workers,
        "seconds_per_member": round(rates.seconds, 1) if rates.seconds is not None else None,
        "progress": 1.0 if pool.state == "ready" else round((1 - _TABLES_SHARE) * (1 - rates.left / pool.count), 4),
        "eta_seconds": round(rates.eta, 1) if active and rates.eta is not None else None,
        "refresh_at": timestamp(pool.refresh_at) if pool.refresh_at else None,
        "refresh_by": timestamp(pool.refresh_by) if pool.refresh_by else None,
        "error": pool.error,
        "created_at": timestamp(pool.created_at),
        "ready_at": timestamp(pool.ready_at) if pool.ready_at else None,
    }


def _rates(members: list[ReferenceMember], count: int, now: datetime) -> Rates:
    running = [member for member in members if member.state == "running" and (member.lease_until or now) > now]
    timed = [member.seconds for member in members if member.seconds is not None]
    if not timed:
        timed = [
            (now - member.started_at).total_seconds() / member.progress
            for member in running
            if member.started_at is not None and member.progress > 0
        ]
    whole = sum(member.state == "ready" for member in members)
    left = count - whole - sum(member.progress for member in running)
    return Rates(len(running), fmean(timed) if timed else None, left)
