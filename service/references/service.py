"""Asking for a reference pool, and taking it back: what the operator does."""

import zlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.catalogue.recipes import Recipe
from service.database import clock, new_id, transaction
from service.errors import BadRecipe, Conflict
from service.references.building import stop
from service.registry import pools, repository
from service.registry.models import Model, ReferencePool
from service.registry.recipes import recipe_of

DEFAULT_COUNT, DEFAULT_STRATEGY, DEFAULT_RESERVED = 32, "halves", 0.3


@dataclass(frozen=True)
class Wanted:
    """What was asked for; None: whatever the pool there is has, else the default.

    `reserved` is the share of the records that strategy "reserved_split" trains on.
    """

    count: int | None = None
    strategy: str | None = None
    reserved: float | None = None
    recipe: dict[str, Any] | None = None
    seed: int | None = None


def prepare(name: str, wanted: Wanted, *, replace: bool = False, actor: str = "local") -> str:
    """Queue the building of a pool, or go on with the one there is; answers its id. Nothing is trained here.

    `replace` ends a pool of another kind first. Raises NotFound, BadRecipe where nothing says how the model is
    trained, and Conflict for a pool of another kind.
    """
    with transaction() as session:
        query = select(Model).where(Model.name == name).with_for_update()
        model = session.scalar(query) or repository.get_model(session, name)
        version = repository.serving_version(session, model)
        recipe = _recipe(model, wanted, recipe_of(model, version))
        pool = pools.live_pool(session, model.id)
        if pool is not None and replace:
            pools.end_pool(session, model, clock(session), actor=actor, why="replaced")
            pool = None
        if pool is not None:
            return _go_on(session, pools.hold(session, pool.id), name, wanted, actor)
        strategy = wanted.strategy or DEFAULT_STRATEGY
        share = wanted.reserved if wanted.reserved is not None else DEFAULT_RESERVED
        made = pools.add_pool(
            session,
            model,
            version,
            clock(session),
            count=wanted.count if wanted.count is not None else DEFAULT_COUNT,
            strategy=strategy,
            reserved=share if strategy == "reserved_split" else None,
            recipe=recipe,
            seed=wanted.seed if wanted.seed is not None else zlib.crc32(new_id("seed").encode()),
            actor=actor,
        )
        return made.id


def _recipe(model: Model, wanted: Wanted, own: Recipe | None) -> dict[str, Any] | None:
    if wanted.recipe is None and own is None:
        raise BadRecipe(f"nothing says how {model.name!r} is trained: give --recipe, here or when registering it")
    return wanted.recipe


def _go_on(session: Session, pool: ReferencePool, name: str, wanted: Wanted, actor: str) -> str:
    for what, given in vars(wanted).items():
        if given is not None and given != getattr(pool, what):
            shown = "another recipe" if what == "recipe" else f"{what} {getattr(pool, what)}"
            raise Conflict(f"{name!r} has a reference pool with {shown}; --replace ends it and builds this one")
    if pool.state in ("cancelled", "failed"):
        members = pools.members_of(session, pool.id)
        pool.state = "planning" if not members else "building" if pool.ready_at is None else "refreshing"
        pool.error, pool.claims, pool.sent_at, pool.sends = None, 0, None, 0
        for member in members:
            member.error, member.claims, member.sent_at, member.sends = None, 0, None, 0
        audit.record(session, "references.resumed", actor=actor, ref=pool.id, data={"model": pool.model_id})
    return pool.id


def cancel(name: str, actor: str = "local") -> str:
    """Stop the work on the pool; what is trained stays for `prepare` to go on with. Raises NotFound, Conflict."""
    with transaction() as session:
        model = repository.get_model(session, name)
        found = pools.live_pool(session, model.id)
        pool = pools.hold(session, found.id) if found is not None else None
        if pool is None or pool.state not in pools.ACTIVE:
            state = f"its pool is {pool.state}" if pool is not None else "it has no reference pool"
            raise Conflict(f"nothing is being prepared for {name!r}: {state}")
        stop(session, pool, "cancelled")
        audit.record(session, "references.cancelled", actor=actor, ref=pool.id, data={"model": pool.model_id})
        return pool.id
