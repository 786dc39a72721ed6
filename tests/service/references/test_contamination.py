"""A published deletion: what holds the deleted gets its date at once, is destroyed by it, and is made again without."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from service.audit.models import AuditEvent
from service.database import clock, reading, transaction
from service.errors import BadParameters, LeaseLost
from service.queue import TASK_PLAN_REFERENCES, TASK_REFERENCE_TABLES, TASK_TRAIN_REFERENCE
from service.references import building, leases
from service.references.messages import Jobs, take_messages
from service.references.service import Wanted, cancel, prepare
from service.registry import pools
from service.registry import service as registry
from service.registry.models import Artefact, Model, ReferencePool, Version
from tests.service.factories import image_model, image_rows, register_images, write_parquet
from tests.service.references.support import (
    COUNT,
    RECIPE,
    artefacts,
    claim,
    finish,
    forget,
    members,
    now,
    plan,
    publish_deletion,
    ready_pool,
    register,
    row,
    settle,
    train,
    train_waiting,
)

WEEK = timedelta(days=7)
HALF = (0, 3, 5, 6)  # one of each pair


@pytest.fixture(autouse=True)
def _registered(database_url: str, tmp_path: Path) -> None:
    register(tmp_path)


def _model() -> Model:
    with reading() as session:
        return session.scalars(select(Model)).one()


def _of_members(pool_id: str) -> dict[int, Artefact]:
    found = {artefact.id: artefact for artefact in artefacts(pools.MEMBER)}
    return {member.number: found[str(member.artefact_id)] for member in members(pool_id)}


def _folders(pool_id: str) -> set[str]:
    return {path.name for path in Path(row(pool_id).path).iterdir()}


def test_what_holds_the_deleted_gets_its_date_in_the_same_transaction() -> None:
    pool_id = ready_pool()
    with pytest.raises(RuntimeError, match="refreshing"):
        _fail_to_publish(pool_id)  # nothing of it may stay
    assert (row(pool_id).state, row(pool_id).deletions) == ("ready", 0)
    assert all(artefact.destroy_by is None for artefact in artefacts())

    published = publish_deletion(*HALF)
    assert row(pool_id).state == "refreshing"
    assert [member.number for member in members(pool_id) if member.state == "stale"] == list(HALF)
    dated = [artefact for artefact in artefacts() if artefact.destroy_by is not None]
    assert {artefact.kind for artefact in dated} == {pools.MEMBER, pools.TABLE}
    assert {artefact.destroy_by for artefact in dated} == {published + WEEK}
    assert {artefact.condemned_by for artefact in dated} == {"job_1"}
    with reading() as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.kind == "references.contaminated")).one()
        found = registry.pool_of(session, session.scalars(select(Model)).one())
    assert (event.data["members"], event.data["job"]) == (4, "job_1")
    assert found is not None
    assert not found.usable


def _fail_to_publish(pool_id: str) -> None:
    with transaction() as session:
        forget(session, lambda _: HALF)
        raise RuntimeError(session.get_one(ReferencePool, pool_id).state)


def test_it_is_destroyed_and_made_again_without_them() -> None:
    pool_id = ready_pool()
    before = _of_members(pool_id)
    published = publish_deletion(*HALF)
    assert not settle(pool_id)  # purged; the members are still to be trained
    for number, artefact in before.items():
        assert Path(artefact.path).exists() == (number not in HALF)
    assert not (Path(row(pool_id).path) / "gate.arrow").exists()
    assert all(_of_members(pool_id)[number].destroy_by is None for number in range(COUNT) if number not in HALF)
    with transaction() as session:
        pools.note_destroyed(session)
    assert [member.state for member in members(pool_id) if member.number in HALF] == ["destroyed"] * 4
    assert train_waiting(pool_id) == list(HALF)
    assert settle(pool_id)
    after = _of_members(pool_id)
    for number in range(COUNT):
        assert (after[number].id != before[number].id) == (number in HALF)
        assert members(pool_id)[number].generation == int(number in HALF)
        assert after[number].destroy_by is None
    gone = [artefact for artefact in artefacts(pools.MEMBER, pools.TABLE) if artefact.destroyed_at]
    assert len(gone) == 5
    assert all(artefact.destroyed_at < artefact.destroy_by == published + WEEK for artefact in gone)  # type: ignore[operator]
    assert (row(pool_id).generation, row(pool_id).refresh_by) == (1, None)
    assert _folders(pool_id) == {Path(artefact.path).name for artefact in after.values()} | {"gate.arrow"}


def test_nothing_outlives_its_date_when_no_worker_comes() -> None:
    pool_id = ready_pool()
    first = publish_deletion(*HALF, job_id="job_1")
    publish_deletion(1, job_id="job_2", at=first + timedelta(days=3))
    assert {artefact.destroy_by for artefact in artefacts(pools.MEMBER, pools.TABLE)} == {first + WEEK}
    assert row(pool_id).refresh_by == first + WEEK
    assert registry.sweep_destroyed(first + WEEK - timedelta(seconds=1)) == 0
    # Whole members go too: their scores of the deleted were never taken out.
    assert registry.sweep_destroyed(first + WEEK) == COUNT + 1
    assert _folders(pool_id) == set()
    with transaction() as session:
        pools.note_destroyed(session)
    assert train_waiting(pool_id) == list(range(COUNT))
    assert settle(pool_id)


def test_the_date_of_a_version_bounds_that_of_references(tmp_path: Path) -> None:
    register(tmp_path, '[retention]\ndestroy_retired_after = "1d"\n[references]\nrefresh_after = "5d"')
    pool_id = ready_pool()
    published = publish_deletion(0)
    assert _of_members(pool_id)[0].destroy_by == published + timedelta(days=1)


def test_several_publications_share_one_refresh() -> None:
    pool_id = ready_pool()
    publish_deletion(0, 2, job_id="job_1")
    publish_deletion(0, 3, job_id="job_2")
    assert (row(pool_id).deletions, row(pool_id).purged) == (2, 0)
    settle(pool_id)
    assert row(pool_id).purged == 2
    assert train_waiting(pool_id) == [0, 2, 3]
    assert [member.generation for member in members(pool_id)[:4]] == [1, 0, 1, 1]
    assert settle(pool_id)


def test_a_training_under_way_loses_its_lease_when_it_holds_the_deleted() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    plan(pool_id)
    touched, other = (claim(TASK_TRAIN_REFERENCE, member.id) for member in members(pool_id)[:2])
    for held in (touched, other):
        Path(held.directory).mkdir()
    published = publish_deletion(0)
    with pytest.raises(LeaseLost):
        building.trained(touched, "00" * 32, 1.0)
    leases.require_wanted(other)
    building.trained(other, "11" * 32, 1.0)
    assert [member.state for member in members(pool_id)[:2]] == ["queued", "ready"]
    # It does not hold them, but has scored them: its date stays until that is purged.
    assert _of_members_done(pool_id)[1].destroy_by is not None
    assert _of_members_done(pool_id)[1].destroy_by <= published + WEEK  # type: ignore[operator]
    assert not settle(pool_id)
    assert _of_members_done(pool_id)[1].destroy_by is None
    assert not Path(touched.directory).exists()
    train_waiting(pool_id)
    assert settle(pool_id)


def _of_members_done(pool_id: str) -> dict[int, Artefact]:
    found = {artefact.id: artefact for artefact in artefacts(pools.MEMBER)}
    return {member.number: found[member.artefact_id] for member in members(pool_id) if member.artefact_id}


def test_a_deletion_during_a_purge_begins_it_again() -> None:
    pool_id = ready_pool()
    publish_deletion(0, job_id="job_1")
    held = claim(TASK_REFERENCE_TABLES, pool_id)
    building.whole_members(held)
    publish_deletion(2, job_id="job_2")
    with pytest.raises(LeaseLost):
        building.purged(held)
    assert _of_members(pool_id)[2].destroy_by is not None
    settle(pool_id)
    assert train_waiting(pool_id) == [0, 2]
    assert settle(pool_id)


def test_a_deletion_while_the_tables_are_written_begins_them_again() -> None:
    pool_id = ready_pool()
    publish_deletion(0, job_id="job_1")
    settle(pool_id)
    train_waiting(pool_id)
    held = claim(TASK_REFERENCE_TABLES, pool_id)
    building.announce_tables(held, ["gate.arrow"])
    (Path(row(pool_id).path) / "gate.arrow").write_text("with the deleted")
    published = publish_deletion(1, job_id="job_2")
    with pytest.raises(LeaseLost):
        building.settled(held, {"gate.arrow": "00" * 32})
    assert all(artefact.destroy_by <= published + WEEK for artefact in artefacts(pools.TABLE) if artefact.destroy_by)
    assert not settle(pool_id)
    assert not (Path(row(pool_id).path) / "gate.arrow").exists()
    train_waiting(pool_id)
    assert settle(pool_id)


def test_a_deletion_while_the_halves_are_drawn_draws_them_again() -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    held = claim(TASK_PLAN_REFERENCES, pool_id)
    publish_deletion(0)
    with pytest.raises(LeaseLost):
        building.planned(held, {"gate": (0,)}, 24, None)
    assert row(pool_id).state == "planning"
    plan(pool_id)


def test_records_that_the_pool_does_not_know_touch_nothing_and_scored_ones_only_the_tables() -> None:
    pool_id = ready_pool(strategy="reserved_split")
    publish_deletion(knows=False)
    assert (row(pool_id).state, row(pool_id).deletions) == ("ready", 0)
    publish_deletion(job_id="job_2")
    assert row(pool_id).state == "refreshing"
    assert [member.state for member in members(pool_id)] == ["ready"] * COUNT
    assert settle(pool_id)  # at once: nobody has to be trained
    assert all(artefact.destroy_by is None for artefact in _of_members(pool_id).values())


def test_a_plan_that_cannot_be_read_ends_the_pool_and_not_the_publication() -> None:
    def unreadable(_: Path) -> list[int]:
        raise BadParameters("damaged")

    pool_id = ready_pool()
    with transaction() as session:
        forget(session, unreadable)
    assert row(pool_id).state == "ended"
    assert all(artefact.destroy_by is not None for artefact in artefacts())


def test_a_refresh_waits_for_company_and_for_its_model_but_not_for_ever(tmp_path: Path) -> None:
    register(tmp_path, '[references]\nrefresh_wait = "1h"')
    pool_id = ready_pool()
    publish_deletion(0)
    settle(pool_id)
    model_id = _model().id
    assert take_messages(Jobs) == []
    _move(pool_id, refresh_at=now())
    assert take_messages(lambda: Jobs(busy={model_id})) == []
    _move(pool_id, refresh_by=now())
    assert take_messages(lambda: Jobs(busy={model_id})) == [(TASK_TRAIN_REFERENCE, members(pool_id)[0].id)]


def _move(pool_id: str, **values: object) -> None:
    with transaction() as session:
        session.execute(update(ReferencePool).where(ReferencePool.id == pool_id).values(**values))


def test_a_cancelled_refresh_keeps_the_dates() -> None:
    pool_id = ready_pool()
    published = publish_deletion(0)
    cancel("digits")
    assert registry.sweep_destroyed(published + WEEK) == COUNT + 1
    assert prepare("digits", Wanted()) == pool_id
    assert row(pool_id).state == "refreshing"


def test_other_data_or_another_recipe_ends_the_pool(tmp_path: Path) -> None:
    pool_id = ready_pool()
    register(tmp_path)  # the same again
    assert row(pool_id).state == "ready"
    held_before = artefacts()
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("epochs = 4", "epochs = 5"))
    register_images(tmp_path, recipe=tmp_path / "recipe.toml")
    assert row(pool_id).state == "ended"
    assert len(artefacts()) == len(held_before)
    assert all(artefact.destroy_by <= now() + WEEK for artefact in artefacts() if artefact.destroy_by)
    assert all(artefact.destroy_by for artefact in artefacts())
    with reading() as session:
        assert registry.pool_of(session, session.scalars(select(Model)).one()) is None

    second = prepare("digits", Wanted(count=COUNT))
    data = write_parquet(tmp_path / "new.parquet", image_rows(5))
    register_images(tmp_path, data=data, path=image_model(tmp_path / "new", fill=1), recipe=tmp_path / "recipe.toml")
    assert row(second).state == "ended"
    with reading() as session:
        whys = [e.data["why"] for e in session.scalars(select(AuditEvent)) if e.kind == "references.ended"]
    assert whys == ["the model has another recipe", "other data was registered"]
    registry.sweep_destroyed(now() + WEEK)
    assert not Path(row(pool_id).path).exists()


def test_a_version_with_another_tokenizer_begins_another_pool() -> None:
    pool_id = ready_pool(seed=9)
    with transaction() as session:
        model = session.scalars(select(Model)).one()
        base = session.scalars(select(Version)).one()
        base.manifest = {"files": {"tokenizer.json": "aa"}}
        version = Version(id="ver_2", model_id=model.id, number=2, digest="d", path="p", state="serving")
        version.manifest, version.created_at = {"files": {"tokenizer.json": "bb"}}, clock(session)
        session.add(version)
        session.flush()
        forget(session, lambda _: (0,), version=version)
    assert row(pool_id).state == "ended"
    assert {artefact.condemned_by for artefact in artefacts(pools.MEMBER, pools.TABLE)} == {"job_1"}
    with reading() as session:
        successor = session.scalars(select(ReferencePool).where(ReferencePool.state == "planning")).one()
    assert (successor.count, successor.seed, successor.version_id) == (COUNT, 9, "ver_2")


def test_taking_the_tables_away_by_a_downgrade_leaves_no_directory_unanswered_for() -> None:
    from alembic import command

    from service import database

    pool_id = ready_pool()
    path = Path(row(pool_id).path)
    command.downgrade(database.migration_config(), "0002")
    with transaction() as session:
        live = "SELECT count(*) FROM artefacts WHERE destroyed_at IS NULL AND destroy_by IS NULL"
        assert session.execute(text(live)).scalar_one() == 0
    database.upgrade()
    assert registry.sweep_destroyed(now()) > 0
    assert not path.exists()
    shutil.rmtree(path.parent, ignore_errors=True)


def test_a_trained_member_never_slips_past_a_publication() -> None:
    """Both orders of a publication and a member's completion, for a member that holds the deleted."""
    pool_id = prepare("digits", Wanted(count=COUNT))
    plan(pool_id)
    first, second = members(pool_id)[:2]
    train(first)
    held = claim(TASK_TRAIN_REFERENCE, second.id)
    publish_deletion(0, 1)
    with pytest.raises(LeaseLost):
        finish(held)
    assert [member.state for member in members(pool_id)[:2]] == ["stale", "queued"]
    assert all(artefact.destroy_by is not None for artefact in artefacts(pools.MEMBER))
