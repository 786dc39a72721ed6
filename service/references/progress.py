"""Where a pool stands, for people and programs that follow it."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.audit.service import timestamp
from service.database import clock
from service.registry import pools
from service.registry.models import Model, ReferencePool
from service.registry.standing import done_of, rates_of, share_of, sides_of


def view(session: Session, pool_id: str) -> dict[str, Any]:
    """The pool as `lethe models prepare --json` prints it."""
    pool = session.get_one(ReferencePool, pool_id)
    members = pools.members_of(session, pool_id)
    rates = rates_of(members, pool.count, clock(session))
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
        "sides": sides_of(members),
        "done": done_of(members),
        "stale": sum(member.state in ("stale", "destroyed") for member in members),
        "workers": rates.workers,
        "seconds_per_member": round(rates.seconds, 1) if rates.seconds is not None else None,
        "progress": share_of(pool, rates.left),
        "eta_seconds": round(rates.eta, 1) if active and rates.eta is not None else None,
        "refresh_at": timestamp(pool.refresh_at) if pool.refresh_at else None,
        "refresh_by": timestamp(pool.refresh_by) if pool.refresh_by else None,
        "error": pool.error,
        "created_at": timestamp(pool.created_at),
        "ready_at": timestamp(pool.ready_at) if pool.ready_at else None,
    }
