"""Reference pools as rows: which one a model has, what a published deletion makes of it, and how it ends.

Everything that writes here holds the pool's row first, so that a publication, a worker that brings a member and one
that builds the tables come one after the other. What a deletion touched gets its date in the deletion's transaction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import new_id
from service.datasets.models import Dataset
from service.errors import LetheError
from service.registry.models import Artefact, Model, ReferenceMember, ReferencePool, Version
from service.settings import get_settings
from service.verification.policy import Policy

FOLDER, MEMBER, TABLE = "reference-pool", "reference-member", "reference-table"
"""Kinds of artefacts: the pool's folder, a member's directory, a table of IN and OUT statistics."""

ENDED = "ended"
ACTIVE = ("planning", "building", "refreshing")
"""States in which there is something to do."""

WAITING = ("queued", "stale", "destroyed")
"""States of a member that has to be trained."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")

Affected = Callable[[Path], Sequence[int] | None]
"""Numbers of the members in a pool's folder that were trained on the deleted records; None: it knows none of them."""


@dataclass(frozen=True)
class PoolView:
    """A pool for those who would read it. Only where `usable` are its members and tables whole and free of the deleted.

    `data_digest` and `holdout_digest` are those it was planned with.
    """

    id: str
    path: Path
    state: str
    count: int
    strategy: str
    generation: int
    data_digest: str
    holdout_digest: str | None

    @property
    def usable(self) -> bool:
        """Whether statistics may be read from it now."""
        return self.state == "ready"


def pool_of(session: Session, model: Model) -> PoolView | None:
    """The pool of a model that has not come to its end, whatever its state; None where there is none."""
    pool = live_pool(session, model.id)
    if pool is None:
        return None
    return PoolView(
        id=pool.id,
        path=Path(pool.path),
        state=pool.state,
        count=pool.count,
        strategy=pool.strategy,
        generation=pool.generation,
        data_digest=pool.dataset_digest,
        holdout_digest=pool.holdout_digest,
    )


def live_pool(session: Session, model_id: str) -> ReferencePool | None:
    """The row of it, not held."""
    query = select(ReferencePool).where(ReferencePool.model_id == model_id, ReferencePool.state != ENDED)
    return session.scalar(query)


def hold(session: Session, pool_id: str) -> ReferencePool:
    """The row as it is now, kept from others until the transaction ends."""
    query = select(ReferencePool).where(ReferencePool.id == pool_id).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one()


def members_of(session: Session, pool_id: str) -> list[ReferenceMember]:
    """Its members as they are now, by number."""
    query = select(ReferenceMember).where(ReferenceMember.pool_id == pool_id).order_by(ReferenceMember.number)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def add_pool(
    session: Session,
    model: Model,
    version: Version,
    now: datetime,
    *,
    count: int,
    strategy: str,
    reserved: float | None,
    recipe: dict[str, Any] | None,
    seed: int,
    actor: str,
) -> ReferencePool:
    """Queue a pool. Its folder is an artefact before the first byte is written to it."""
    dataset, pool_id = session.get_one(Dataset, model.dataset_id), new_id("rpl")
    pool = ReferencePool(
        id=pool_id,
        model_id=model.id,
        version_id=version.id,
        dataset_id=dataset.id,
        dataset_digest=dataset.digest,
        holdout_digest=dataset.holdout_digest,
        state="planning",
        count=count,
        strategy=strategy,
        reserved=reserved,
        seed=seed,
        path=str(get_settings().home / "references" / model.name / pool_id),
        recipe=recipe,
        created_at=now,
    )
    session.add(pool)
    session.flush()
    note_artefact(session, pool, FOLDER, Path(pool.path), now)
    data = {"model": model.id, "count": count, "strategy": strategy, "data": dataset.digest}
    audit.record(session, "references.queued", actor=actor, ref=pool_id, data=data)
    return pool


def note_artefact(
    session: Session, pool: ReferencePool, kind: str, path: Path, now: datetime, destroy_by: datetime | None = None
) -> str:
    """A row for something of the pool that is about to be written; answers its id."""
    row = Artefact(id=new_id("art"), model_id=pool.model_id, kind=kind, path=str(path), created_at=now)
    row.destroy_by = destroy_by
    session.add(row)
    session.flush()
    return row.id


def artefacts_of(session: Session, pool: ReferencePool) -> list[Artefact]:
    """What lies in the pool's folder and is not destroyed; not the folder itself."""
    query = select(Artefact).where(_inside(pool), Artefact.destroyed_at.is_(None)).order_by(Artefact.id)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def _inside(pool: ReferencePool) -> Any:
    return Artefact.path.startswith(f"{pool.path}/", autoescape=True)


def forget(
    session: Session,
    *,
    model: Model,
    affected: Affected,
    policy: Policy,
    job_id: str,
    now: datetime,
    version: Version | None = None,
) -> None:
    """Within the transaction that writes tombstones: date everything of the model's pool that holds the deleted.

    Members that were trained on them become stale and will be trained without; the pool is not used until then. Where
    the new `version` has another tokenizer, which its training on fewer records made, nothing of the pool stays
    comparable: it ends, and another one of its kind is queued.
    """
    found = live_pool(session, model.id)
    if found is None:
        return
    pool = hold(session, found.id)
    if version is not None and _tokenizer(session.get_one(Version, pool.version_id)) != _tokenizer(version):
        _replace(session, pool, model, version, job_id, now)
        return
    try:
        # While it is planned nothing was trained, but the plan may rest on the deleted records: it is begun again.
        numbers = [] if pool.state == "planning" else affected(Path(pool.path))
    except LetheError:
        end_pool(session, model, now, actor="worker", why="its plan cannot be read", job_id=job_id)
        return
    if numbers is None:
        return
    condemned = _condemn(session, pool, now + policy.refresh_after_timedelta, job_id)
    pool.deletions += 1
    pool.refresh_at = now + policy.references.refresh_wait_timedelta
    pool.refresh_by = min(pool.refresh_by or now + policy.refresh_after_timedelta, now + policy.refresh_after_timedelta)
    if pool.state == "ready":
        pool.state = "refreshing"
    take_back(pool)
    for member in members_of(session, pool.id):
        if member.number in numbers:
            _contaminate(member)
    session.flush()
    data = {"model": model.id, "job": job_id, "members": len(numbers), "artefacts": condemned}
    data["destroy_by"] = audit.timestamp(now + policy.refresh_after_timedelta)
    audit.record(session, "references.contaminated", actor="worker", ref=pool.id, data=data)


def _contaminate(member: ReferenceMember) -> None:
    """What it is now or would become holds deleted people: whoever trains it loses the lease, and it is due again."""
    if member.state == "ready":
        member.generation += 1
        member.state = "stale"
    elif member.state == "running":
        give_back(member)
    member.sent_at, member.sends, member.claims = None, 0, 0


def give_back(member: ReferenceMember) -> None:
    """A member that is not being trained any more, and has to be."""
    member.state = "queued" if member.artefact_id is None else "stale"
    member.progress = 0.0
    take_back(member)


def take_back(row: ReferencePool | ReferenceMember) -> None:
    """Whoever works on the row has lost its lease: its fence is not the highest any more."""
    row.fence += 1
    row.owner, row.lease_until, row.sent_at, row.sends = None, None, None, 0


def _condemn(session: Session, pool: ReferencePool, destroy_by: datetime, job_id: str | None) -> int:
    """Date whatever lies in the folder, unless it has an earlier date; answers how many artefacts got this one."""
    later = or_(Artefact.destroy_by.is_(None), Artefact.destroy_by > destroy_by)
    statement = update(Artefact).where(_inside(pool), Artefact.destroyed_at.is_(None), later)
    values = {"destroy_by": destroy_by, "condemned_by": func.coalesce(Artefact.condemned_by, job_id)}
    dated = session.execute(statement.values(**values).execution_options(synchronize_session="fetch"))
    return int(dated.rowcount)  # type: ignore[attr-defined]


def end_pool(session: Session, model: Model, now: datetime, *, actor: str, why: str, job_id: str | None = None) -> None:
    """The model's pool is of no use any more: everything of it gets a date, and whoever works on it stops."""
    found = live_pool(session, model.id)
    if found is None:
        return
    pool = hold(session, found.id)
    destroy_by = now + Policy.model_validate(model.policy).refresh_after_timedelta
    pool.state, pool.ended_at, pool.refresh_at, pool.refresh_by = ENDED, now, None, None
    take_back(pool)
    for member in members_of(session, pool.id):
        if member.state == "running":
            give_back(member)
    session.flush()
    _condemn(session, pool, destroy_by, job_id)
    folder = select(Artefact).where(Artefact.path == pool.path, Artefact.destroyed_at.is_(None))
    for row in session.scalars(folder):
        row.destroy_by, row.condemned_by = destroy_by, job_id
    session.flush()
    data = {"model": model.id, "why": why, "destroy_by": audit.timestamp(destroy_by)}
    audit.record(session, "references.ended", actor=actor, ref=pool.id, data=data)


def _replace(session: Session, pool: ReferencePool, model: Model, version: Version, job_id: str, now: datetime) -> None:
    end_pool(session, model, now, actor="worker", why="the new version has another tokenizer", job_id=job_id)
    settings: Mapping[str, Any] = {
        name: getattr(pool, name) for name in ("count", "strategy", "reserved", "recipe", "seed")
    }
    add_pool(session, model, version, now, actor="worker", **settings)


def _tokenizer(version: Version) -> dict[str, str]:
    listed: dict[str, str] = version.manifest.get("files", {})
    return {name: listed[name] for name in TOKENIZER_FILES if name in listed}


def note_destroyed(session: Session) -> None:
    """Members whose directory has been destroyed say so; those of a pool that lives on will be trained again."""
    gone = select(Artefact.id).where(Artefact.kind == MEMBER, Artefact.destroyed_at.is_not(None))
    lost = update(ReferenceMember).where(ReferenceMember.state.in_(("ready", "stale")))
    session.execute(lost.where(ReferenceMember.artefact_id.in_(gone)).values(state="destroyed"))
