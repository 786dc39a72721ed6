"""Rows and leases of a pool: who works on what, what a crash leaves, and that nobody writes twice."""

from pathlib import Path
from threading import Barrier, Thread

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from service.audit.models import AuditEvent
from service.database import reading, transaction
from service.errors import BadRecipe, Cancelled, Conflict, JobError, LeaseLost, NotFound
from service.queue import TASK_PLAN_REFERENCES, TASK_REFERENCE_TABLES, TASK_TRAIN_REFERENCE
from service.references import building, leases
from service.references.messages import Jobs, take_messages
from service.references.progress import view
from service.references.service import Wanted, cancel, prepare
from service.registry import pools
from service.registry import service as registry
from service.registry.models import Model, ReferencePool
from service.settings import get_settings
from tests.service.factories import register_images
from tests.service.references.support import (
    COUNT,
    artefacts,
    claim,
    expire,
    finish,
    members,
    now,
    plan,
    ready_pool,
    register,
    row,
    settle,
    train,
    train_waiting,
)


@pytest.fixture(autouse=True)
def _registered(database_url: str, tmp_path: Path) -> None:
    register(tmp_path)


def _states(pool_id: str) -> str:
    return "".join(member.state[0] for member in members(pool_id))


def _events(pool_id: str) -> list[str]:
    with reading() as session:
        query = select(AuditEvent.kind).where(AuditEvent.ref == pool_id).order_by(AuditEvent.id)
        return [kind.removeprefix("references.") for kind in session.scalars(query)]


def test_a_pool_is_built_step_by_step() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT, seed=5))
    assert prepare("digits", Wanted()) == prepare("digits", Wanted(count=COUNT)) == pool_id
    assert leases.claim(TASK_REFERENCE_TABLES, pool_id, "early") is None
    plan(pool_id)
    assert [(m.number, m.pair, m.half, m.side) for m in members(pool_id)[:3]] == [
        (0, 0, 0, "gate"),
        (1, 0, 1, "gate"),
        (2, 1, 0, "gate"),
    ]
    assert leases.claim(TASK_REFERENCE_TABLES, pool_id, "early") is None
    train_waiting(pool_id)
    assert settle(pool_id)
    with reading() as session:
        found = registry.pool_of(session, session.scalars(select(Model)).one())
    assert found is not None
    assert (found.usable, found.count, found.generation, found.path.is_dir()) == (True, COUNT, 0, True)
    kept = artefacts(pools.MEMBER, pools.TABLE, pools.FOLDER)
    assert len(kept) == COUNT + 2
    assert all(artefact.destroy_by is None and Path(artefact.path).exists() for artefact in kept)
    assert all(artefact.digest for artefact in kept if artefact.kind != pools.FOLDER)
    assert {artefact.id for artefact in kept} > {member.artefact_id for member in members(pool_id)}
    assert _events(pool_id) == ["queued", "planned", "ready"]
    assert leases.claim(TASK_REFERENCE_TABLES, pool_id, "late") is None


def test_workers_side_by_side_each_take_another_member() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    plan(pool_id)
    wanted, taken, start = members(pool_id), [], Barrier(6)

    def worker(name: str) -> None:
        start.wait()
        for member in wanted:  # every worker gets every message
            held = leases.claim(TASK_TRAIN_REFERENCE, member.id, name)
            if held is not None:
                taken.append((held.number, name))
                finish(held)

    threads = [Thread(target=worker, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in taken) == list(range(COUNT))
    assert _states(pool_id) == "r" * COUNT
    assert len(artefacts(pools.MEMBER)) == COUNT


def test_a_member_of_a_vanished_worker_is_trained_again_and_the_late_one_writes_nothing() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    plan(pool_id)
    member = members(pool_id)[3]
    late = claim(TASK_TRAIN_REFERENCE, member.id, "late")
    assert leases.claim(TASK_TRAIN_REFERENCE, member.id, "other") is None
    expire(member.id)
    held = claim(TASK_TRAIN_REFERENCE, member.id, "other")
    assert (held.fence, held.claims, held.directory != late.directory) == (2, 2, True)
    with pytest.raises(LeaseLost):
        finish(late)
    with pytest.raises(LeaseLost):
        building.fail(late, JobError("late"))
    assert not leases.renew(late, progress=0.9)
    with pytest.raises(LeaseLost):
        leases.require_wanted(late)
    finish(held)
    leases.require_wanted(held)  # its process is still ending
    assert leases.renew(held)
    train_waiting(pool_id)
    assert settle(pool_id)  # which destroys what the late one has written
    assert not Path(late.directory).exists()
    assert Path(held.directory).is_dir()
    assert members(pool_id)[3].artefact_id == held.artefact_id


def test_what_a_crash_left_is_destroyed_by_its_date_and_nothing_that_never_was_is_reported() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    plan(pool_id)
    first, second = members(pool_id)[:2]
    begun, dead = claim(TASK_TRAIN_REFERENCE, first.id), claim(TASK_TRAIN_REFERENCE, second.id)
    Path(begun.directory).mkdir()
    cancel("digits")
    assert registry.sweep_destroyed(now()) == 0
    assert registry.sweep_destroyed(now() + leases.grace()) == 1
    assert not Path(begun.directory).exists()
    assert {artefact.path for artefact in artefacts(pools.MEMBER)} == {begun.directory}
    assert dead.artefact_id not in {artefact.id for artefact in artefacts()}


def test_cancelled_work_stops_and_goes_on_later() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    plan(pool_id)
    train(members(pool_id)[0])
    held = claim(TASK_TRAIN_REFERENCE, members(pool_id)[1].id)
    assert cancel("digits") == pool_id
    assert _states(pool_id) == "rq" + "q" * (COUNT - 2)
    with pytest.raises(LeaseLost):
        leases.require_wanted(held)
    assert take_messages(Jobs) == []
    assert leases.claim(TASK_TRAIN_REFERENCE, members(pool_id)[2].id, "x") is None
    with pytest.raises(Conflict, match="its pool is cancelled"):
        cancel("digits")
    assert prepare("digits", Wanted()) == pool_id
    assert row(pool_id).state == "building"
    assert train_waiting(pool_id) == list(range(1, COUNT))
    assert settle(pool_id)
    assert _events(pool_id) == ["queued", "planned", "cancelled", "resumed", "ready"]


def test_a_failure_is_kept_with_its_cause_and_another_try_goes_on() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    plan(pool_id)
    other = claim(TASK_TRAIN_REFERENCE, members(pool_id)[5].id, "other")
    building.fail(claim(TASK_TRAIN_REFERENCE, members(pool_id)[2].id), JobError("no space"))
    assert row(pool_id).error == {
        "code": "job_failed", "detail": "no space", "task": TASK_TRAIN_REFERENCE, "member": 2,
    }  # fmt: skip
    with pytest.raises(LeaseLost):
        leases.require_wanted(other)
    with reading() as session:
        assert view(session, pool_id)["state"] == "failed"
    assert prepare("digits", Wanted()) == pool_id
    assert train_waiting(pool_id) == list(range(COUNT))
    assert settle(pool_id)
    assert row(pool_id).error is None


def test_nobody_wants_the_work_of_a_pool_that_failed_meanwhile() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    held = claim(TASK_PLAN_REFERENCES, pool_id)
    with transaction() as session:
        session.get_one(ReferencePool, pool_id).state = "failed"
    with pytest.raises(Cancelled, match="is failed"):
        leases.require_wanted(held)
    leases.release(held)
    assert row(pool_id).owner is None


def test_messages_go_out_one_at_a_time_and_again_when_they_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    assert take_messages(Jobs) == [(TASK_PLAN_REFERENCES, pool_id)]
    assert take_messages(Jobs) == []
    plan(pool_id)
    ids = [member.id for member in members(pool_id)]
    assert take_messages(Jobs) == [(TASK_TRAIN_REFERENCE, ids[0])]
    assert take_messages(Jobs) == []
    claim(TASK_TRAIN_REFERENCE, ids[0], "a")
    assert take_messages(lambda: Jobs(waiting=True)) == []  # a deletion job goes first
    assert take_messages(Jobs) == [(TASK_TRAIN_REFERENCE, ids[1])]
    monkeypatch.setenv("LETHE_JOBS__RESEND_SECONDS", "0")
    get_settings.cache_clear()
    assert take_messages(Jobs) == take_messages(Jobs) == [(TASK_TRAIN_REFERENCE, ids[1])]
    claim(TASK_TRAIN_REFERENCE, ids[1], "b")
    expire(ids[0])
    assert take_messages(Jobs) == [(TASK_TRAIN_REFERENCE, ids[0])]


def test_progress_tells_workers_and_time() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    with reading() as session:
        told = view(session, pool_id)
    assert (told["state"], told["progress"], told["eta_seconds"], told["workers"]) == ("planning", 0.0, None, 0)
    plan(pool_id)
    for member in members(pool_id)[:2]:
        train(member)
    held = [claim(TASK_TRAIN_REFERENCE, member.id) for member in members(pool_id)[2:4]]
    assert leases.renew(held[0], progress=0.5)
    with reading() as session:
        told = view(session, pool_id)
    assert (told["done"], told["workers"], told["seconds_per_member"]) == (2, 2, 12.0)
    assert told["eta_seconds"] == 5.5 * 12 / 2
    assert told["progress"] == pytest.approx(0.98 * 2.5 / 8, abs=1e-3)


def test_a_model_has_one_pool_and_another_kind_needs_a_word() -> None:
    pool_id = ready_pool()
    for wanted, told in ((Wanted(count=16), "with count 8"), (Wanted(strategy="reserved_split"), "strategy halves")):
        with pytest.raises(Conflict, match=f"{told}; --replace"):
            prepare("digits", wanted)
    another = prepare("digits", Wanted(count=16, strategy="reserved_split"), replace=True)
    assert (row(another).reserved, row(another).state, row(pool_id).state) == (0.3, "planning", "ended")
    with pytest.raises(IntegrityError), transaction() as session:
        session.get_one(ReferencePool, pool_id).state = "ready"
    assert all(artefact.destroy_by for artefact in artefacts() if artefact.path.startswith(row(pool_id).path))
    registry.sweep_destroyed(now() + leases.grace() * 8)
    assert not Path(row(pool_id).path).exists()
    with transaction() as session:
        pools.note_destroyed(session)
    assert _states(pool_id) == "d" * COUNT


def test_nothing_is_prepared_that_nobody_can_train(tmp_path: Path) -> None:
    register_images(tmp_path, "bare")
    with pytest.raises(BadRecipe, match="give --recipe"):
        prepare("bare", Wanted())
    with pytest.raises(NotFound, match="no model 'none'"):
        prepare("none", Wanted())
    with pytest.raises(Conflict, match="it has no reference pool"):
        cancel("bare")
    assert prepare("bare", Wanted(recipe={"model": {}})).startswith("rpl_")


def test_a_member_whose_directory_the_sweeper_took_is_trained_again() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    plan(pool_id)
    slow = claim(TASK_TRAIN_REFERENCE, members(pool_id)[0].id)
    Path(slow.directory).mkdir()
    (Path(slow.directory) / "part").write_text("x")
    registry.sweep_destroyed(now() + leases.grace())
    building.trained(slow, "00" * 32, 1.0)
    assert _states(pool_id) == "q" * COUNT
    assert train_waiting(pool_id) == list(range(COUNT))
