"""A registered model whose pool is worked on by the very steps of the tasks, with small files for trained members."""

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database import clock, reading, transaction
from service.queue import TASK_PLAN_REFERENCES, TASK_REFERENCE_TABLES, TASK_TRAIN_REFERENCE
from service.references import building, leases
from service.references.leases import Claim
from service.references.service import Wanted, prepare
from service.registry import destruction, pools
from service.registry.models import Artefact, Model, ReferenceMember, ReferencePool, Version
from service.verification.policy import Policy
from tests.service.factories import register_images

RECIPE = '[model]\ntask = "image-classification"\nconfig = { model_type = "resnet" }\n[training]\nepochs = 4\n'
COUNT = 8
SIDES = {"method": (), "gate": tuple(range(COUNT // 2))}
TABLES = ("gate.arrow",)


def now() -> datetime:
    with reading() as session:
        return clock(session)


def register(folder: Path, policy: str = "") -> None:
    """The model "digits" with a recipe."""
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "policy.toml").write_text(policy)
    register_images(folder, recipe=folder / "recipe.toml", policy=folder / "policy.toml")


def row(pool_id: str) -> ReferencePool:
    with reading() as session:
        return session.get_one(ReferencePool, pool_id)


def members(pool_id: str) -> list[ReferenceMember]:
    with reading() as session:
        return pools.members_of(session, pool_id)


def artefacts(*kinds: str) -> list[Artefact]:
    with reading() as session:
        query = select(Artefact).order_by(Artefact.id)
        return [found for found in session.scalars(query) if found.kind in (kinds or (found.kind,))]


def claim(task: str, row_id: str, owner: str = "test") -> Claim:
    """A claim that must succeed."""
    made = leases.claim(task, row_id, owner)
    assert made is not None
    return made


def plan(pool_id: str) -> None:
    """The halves are drawn."""
    held = claim(TASK_PLAN_REFERENCES, pool_id)
    Path(row(pool_id).path).mkdir(parents=True)
    building.planned(held, SIDES, 24, None)


def train(member: ReferenceMember, owner: str = "test") -> Claim:
    """One member is made and stored."""
    held = claim(TASK_TRAIN_REFERENCE, member.id, owner)
    finish(held)
    return held


def finish(held: Claim) -> None:
    """What a worker does with its claim."""
    Path(held.directory).mkdir()
    (Path(held.directory) / "model.safetensors").write_text(f"{held.number} {held.generation}")
    building.trained(held, f"{held.number:02}{held.generation:02}" * 16, 12.0)


def settle(pool_id: str) -> bool:
    """One tables task; whether the pool became ready by it."""
    held = claim(TASK_REFERENCE_TABLES, pool_id)
    if building.purge_due(held):
        destruction.destroy_early(building.whole_members(held)[1], now())
        building.purged(held)
    standing = building.standing(held)
    if standing is None:
        return False
    assert [name.split("-")[1] for name, _ in standing] == [f"{number:03}" for number in range(COUNT)]
    destruction.destroy_early(building.whole_members(held)[1], now())
    building.announce_tables(held, TABLES)
    for name in TABLES:
        (Path(row(pool_id).path) / name).write_text("statistics")
    building.settled(held, dict.fromkeys(TABLES, "ab" * 32))
    return True


def train_waiting(pool_id: str) -> list[int]:
    """Train every member that has to be; answers their numbers."""
    waiting = [member for member in members(pool_id) if member.state in pools.WAITING]
    for member in waiting:
        train(member)
    return [member.number for member in waiting]


def ready_pool(**wanted: int | str) -> str:
    """A pool of eight, ready; answers its id."""
    pool_id = prepare("digits", Wanted(count=COUNT, **wanted))  # type: ignore[arg-type]
    plan(pool_id)
    train_waiting(pool_id)
    assert settle(pool_id)
    return pool_id


def forget(
    session: Session,
    affected: pools.Affected,
    job_id: str = "job_1",
    at: datetime | None = None,
    version: Version | None = None,
) -> datetime:
    """The part of a publication that concerns the pool, in its transaction; answers the time that it takes."""
    moment = at or clock(session)
    model = session.scalars(select(Model)).one()
    policy = Policy.model_validate(model.policy)
    pools.forget(session, model=model, version=version, affected=affected, policy=policy, job_id=job_id, now=moment)
    return moment


def publish_deletion(*numbers: int, job_id: str = "job_1", knows: bool = True, at: datetime | None = None) -> datetime:
    """The same, published: of records that these members hold; answers its time."""
    with transaction() as session:
        return forget(session, lambda _: list(numbers) if knows else None, job_id, at)


def expire(member_id: str) -> None:
    """The worker of a member has vanished: its lease is over."""
    with transaction() as session:
        session.get_one(ReferenceMember, member_id).lease_until = clock(session) - timedelta(seconds=1)
