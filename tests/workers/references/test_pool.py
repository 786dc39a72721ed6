"""A pool is built step by step, goes on after a crash, belongs to its data, and forgets whom it is told to forget."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from service.errors import BadParameters, Cancelled, JobError
from tests.workers import factories
from tests.workers.references.conftest import COUNT, DATA, tiny_recipe
from workers.modeling.directories import directory_digest, sha256_file
from workers.modeling.problem import Context, Progress
from workers.modeling.training_record import read_exposures
from workers.references.layout import SCORES_FILE, Pool, read_split, read_table
from workers.references.members import Materials, train_member
from workers.references.pool import (
    affected_members,
    build_pool,
    open_pool,
    plan_pool,
    rebind_pool,
    refresh_member,
    refresh_pool,
    settle_pool,
)
from workers.references.tables import load_side, side_table


def watched(seed: int, stop_after: float = 2.0) -> tuple[Context, list[Progress]]:
    """A context that keeps what it is told, and is cancelled once the whole is this far."""
    told: list[Progress] = []

    def cancelled() -> bool:
        return bool(told) and told[-1].fraction >= stop_after

    return Context(factories.context().device, seed, progress=told.append, cancelled=cancelled), told


@pytest.fixture
def copied(pool: Pool, tmp_path: Path) -> Pool:
    return Pool(Path(shutil.copytree(pool.directory, tmp_path / "copy")), pool.facts)


def test_a_pool_says_what_it_is(pool: Pool) -> None:
    facts = open_pool(pool.directory, "image-classification", DATA).facts
    assert facts == pool.facts
    assert (facts.count, facts.strategy, facts.seed) == (COUNT, "halves", 7)
    assert [member.number for member in facts.members] == list(range(COUNT))
    assert [member.side for member in facts.members] == ["gate", "gate", "method", "method"] * 4
    assert sum(member.records for member in facts.members) == COUNT // 2 * 150
    for member in facts.members:
        assert member.scores_digest == sha256_file(pool.directory / member.path / SCORES_FILE)


def test_sides_are_made_of_their_own_members_only(pool: Pool) -> None:
    planned = read_split(pool.directory)
    for side, rest in (("method", 2), ("gate", 0)):
        numbers = [number for number in range(COUNT) if number % 4 in (rest, rest + 1)]
        members = [pool.directory / f"member-{number:03d}" for number in numbers]
        expected = side_table(planned, members, "image-classification").to_pydict()
        for name, values in load_side(pool, side).table.to_pydict().items():  # type: ignore[arg-type]
            np.testing.assert_array_equal(values, expected[name])
    assert set(load_side(pool, "gate").column("out_count")) == {4.0}


def test_a_small_pool_is_all_the_gate_s(materials: Materials, tmp_path: Path) -> None:
    small = build_pool(tmp_path / "pool", materials, factories.context(), 8)
    assert set(load_side(small, "gate").column("out_count")) == {4.0}
    with pytest.raises(BadParameters, match="no method side; it takes 16"):
        load_side(small, "method")


def test_an_interrupted_build_goes_on_and_ends_the_same(pool: Pool, materials: Materials, tmp_path: Path) -> None:
    context, _ = watched(7, stop_after=0.3)
    with pytest.raises(Cancelled):
        build_pool(tmp_path / "pool", materials, context, COUNT)
    kept = {path.name: path.stat().st_mtime_ns for path in sorted((tmp_path / "pool").glob("member-*"))}
    assert 3 <= len(kept) <= 5
    with pytest.raises(BadParameters, match="not all references are trained"):
        open_pool(tmp_path / "pool")
    (tmp_path / "pool" / "member-009.partial-1").mkdir()  # what a killed process leaves
    context, told = watched(7)
    again = build_pool(tmp_path / "pool", materials, context, COUNT)
    assert {name: (tmp_path / "pool" / name).stat().st_mtime_ns for name in kept} == kept
    assert [member.weights_digest for member in again.facts.members] == [m.weights_digest for m in pool.facts.members]
    assert again.facts.tables == pool.facts.tables
    assert not (tmp_path / "pool" / "member-009.partial-1").exists()
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert fractions[0] > len(kept) / COUNT
    assert told[-1].fraction == 1.0
    assert told[len(told) // 2].eta_seconds is not None


def test_a_finished_build_is_not_repeated(copied: Pool, materials: Materials) -> None:
    before = directory_digest(copied.directory)
    build_pool(copied.directory, materials, factories.context(7), COUNT)
    assert directory_digest(copied.directory) == before


@pytest.mark.parametrize(
    ("changes", "count", "seed", "reserved", "told"),
    [
        ({"data_digest": "12" * 32}, COUNT, 7, None, "another data"),
        ({"holdout_digest": None}, COUNT, 7, None, "another holdout"),
        ({"recipe": tiny_recipe(3)}, COUNT, 7, None, "another recipe"),
        ({}, 8, 7, None, "another count"),
        ({}, COUNT, 8, None, "another seed"),
        ({}, COUNT, 7, 0.5, "another strategy"),
    ],
)
def test_a_pool_of_something_else_is_not_gone_on_with(
    pool: Pool, materials: Materials, changes: dict[str, Any], count: int, seed: int, reserved: float | None, told: str
) -> None:
    with pytest.raises(BadParameters, match=told):
        plan_pool(pool.directory, dataclasses.replace(materials, **changes), count, seed, reserved)


def test_other_directories_are_left_alone(materials: Materials, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadParameters, match="something else"):
        plan_pool(tmp_path, materials, 8)
    with pytest.raises(BadParameters, match="no reference pool"):
        open_pool(tmp_path)


def test_a_pool_of_other_data_or_task_or_with_changed_tables_is_refused(copied: Pool) -> None:
    for given, told in (
        ({"task": "causal-lm"}, "another task"),
        ({"data_digest": "12" * 32}, "other data"),
        ({"holdout_digest": "12" * 32}, "another held-out set"),
    ):
        with pytest.raises(BadParameters, match=told):
            open_pool(copied.directory, **given)
    path = copied.directory / "gate.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadParameters, match="not the file that was written"):
        open_pool(copied.directory)
    settle_pool(copied.directory)
    open_pool(copied.directory)


def test_affected_are_the_members_that_saw_a_record(pool: Pool) -> None:
    saw: dict[str, set[int]] = {}
    for number in range(COUNT):
        for name in read_exposures(pool.directory / f"member-{number:03d}")["record_id"].to_pylist():
            saw.setdefault(name, set()).add(number)
    for names in (["d00003"], ["d00003", "d00004"], ["d00003", "d00090", "d00140"]):
        assert affected_members(pool, names) == sorted(set().union(*(saw[name] for name in names)))
    assert len(affected_members(pool, ["d00003"])) == COUNT // 2
    assert affected_members(pool, ["nobody"]) == []


def everywhere(directory: Path) -> set[str]:
    """Every record id of the data that any file of the pool mentions."""
    found = set(read_split(directory).train.tolist())
    for path in directory.glob("*/" + SCORES_FILE):
        table = read_table(path)
        found |= set(table.filter(pc.equal(table["set"], "train"))["record_id"].to_pylist())
        found |= set(read_exposures(path.parent)["record_id"].to_pylist())
    for path in directory.glob("[mg]*.arrow"):
        table = read_table(path)
        found |= set(table.filter(pc.equal(table["set"], "train"))["record_id"].to_pylist())
    return found


def test_a_deleted_person_leaves_every_file_and_nobody_else_is_touched(copied: Pool, materials: Materials) -> None:
    gone = [f"d{at:05d}" for at in range(30, 40)]  # one subject
    affected = affected_members(copied, gone)
    assert set(gone) <= everywhere(copied.directory)
    refreshed = refresh_pool(copied, gone, materials, factories.context())
    assert not set(gone) & everywhere(copied.directory)
    assert len(everywhere(copied.directory)) == 140
    for was, member in zip(copied.facts.members, refreshed.facts.members, strict=True):
        touched = member.number in affected
        assert member.generation == int(touched)
        assert member.path == f"member-{member.number:03d}" + ("-g1" if touched else "")
        assert (member.weights_digest != was.weights_digest) == touched
    assert not (copied.directory / f"member-{affected[0]:03d}").exists()
    assert (refreshed.facts.excluded, refreshed.facts.split.records) == (10, 140)
    assert open_pool(copied.directory).facts == refreshed.facts
    assert load_side(refreshed, "gate").table.num_rows == 140 + 60


def test_refreshing_can_be_cut_into_steps_and_repeated(copied: Pool, materials: Materials) -> None:
    gone = ["d00030"]
    affected = affected_members(copied, gone)
    with pytest.raises(JobError, match="refresh it first"):
        settle_pool(copied.directory, gone)
    for number in affected:
        refresh_member(copied, number, gone, materials, factories.context())
    stamps = {path.name: path.stat().st_mtime_ns for path in copied.directory.glob("member-*-g1")}
    assert len(stamps) == len(affected)
    refresh_member(copied, affected[0], gone, materials, factories.context())  # delivered twice
    settle_pool(copied.directory, gone)
    settled = settle_pool(copied.directory)
    assert {path.name: path.stat().st_mtime_ns for path in copied.directory.glob("member-*-g1")} == stamps
    second = refresh_member(settled, affected[0], ["d00030", "d00031"], materials, factories.context())
    if affected[0] in affected_members(settled, ["d00031"]):
        assert second.name.endswith("-g2")


def test_building_again_on_data_that_lost_records_refreshes_the_pool(copied: Pool, materials: Materials) -> None:
    gone = {f"d{at:05d}" for at in range(30, 40)}
    fewer = dataclasses.replace(materials, data=materials.data.subset([at for at in range(150) if not 30 <= at < 40]))
    shutil.rmtree(copied.directory / "member-000")  # and one was lost
    affected = affected_members(copied, gone)
    again = build_pool(copied.directory, fewer, factories.context(7), COUNT)
    assert not gone & everywhere(copied.directory)
    for member in again.facts.members:
        assert member.generation == int(member.number in affected and member.number != 0)
    assert again.facts.excluded == 10


def test_settling_notices_a_member_of_another_pool(copied: Pool, materials: Materials, tmp_path: Path) -> None:
    other = plan_pool(tmp_path / "other", materials, COUNT, seed=8)
    shutil.rmtree(copied.directory / "member-004")
    with pytest.raises(JobError, match="reference 4 is not trained"):
        settle_pool(copied.directory)
    shutil.copytree(train_member(other, 4, materials, factories.context()), copied.directory / "member-004")
    with pytest.raises(JobError, match="made for another pool"):
        settle_pool(copied.directory)


def test_compacted_data_keeps_the_pool(copied: Pool, materials: Materials) -> None:
    gone = [f"d{at:05d}" for at in range(30, 40)]
    compacted = materials.data.subset([at for at in range(150) if not 30 <= at < 40])
    with pytest.raises(BadParameters, match="lacks 10 records"):
        rebind_pool(copied.directory, compacted, "ef" * 32)
    refresh_pool(copied, gone, materials, factories.context())
    rebound = rebind_pool(copied.directory, compacted, "ef" * 32)
    assert open_pool(copied.directory, data_digest="ef" * 32).facts == rebound.facts
    assert settle_pool(copied.directory).complete


def test_references_on_reserved_people_never_need_a_refresh_for_anybody_else(
    materials: Materials, tmp_path: Path
) -> None:
    built = build_pool(tmp_path / "pool", materials, factories.context(), 8, reserved=0.4)
    trainable = read_split(built.directory).split.trainable
    assert 0.4 <= trainable.mean() < 0.5
    others = [f"d{at:05d}" for at in np.flatnonzero(~trainable)]
    assert affected_members(built, others) == []
    assert len(affected_members(built, [f"d{np.flatnonzero(trainable)[0]:05d}"])) == 4
    assert set(load_side(built, "gate").column("out_count")) == {4.0}
    named = plan_pool(tmp_path / "named", materials, 8, reserved=[f"d{at:05d}" for at in (3, 57)])
    marked = read_split(named.directory).split.trainable
    assert np.flatnonzero(marked).tolist() == [*range(10), *range(50, 60)]


def test_without_held_out_records_a_pool_still_knows_memorization(
    make_materials: Callable[..., Materials], tmp_path: Path
) -> None:
    chosen = make_materials(factories.digits(60, 10)[0], None, tiny_recipe(1))
    built = build_pool(tmp_path / "pool", chosen, factories.context(), 8)
    side = load_side(built, "gate")
    assert side.table.num_rows == 60
    assert np.isfinite(side.memorization(np.array(["d00000", "d00059"]))).all()


def test_language_pools_have_tables_per_token_and_per_byte(
    make_materials: Callable[..., Materials], tmp_path: Path
) -> None:
    recipe = factories.gpt2_recipe(width=16, layers=1, epochs=1, batch_size=32)
    chosen = make_materials(*factories.conversations(12, 6), recipe)
    built = build_pool(tmp_path / "pool", chosen, factories.context(), 8)
    tokens, bytes_ = (load_side(built, "gate", per_byte).column("out_mean") for per_byte in (False, True))
    assert np.all(tokens < bytes_)
    assert np.all(bytes_ < 0)
