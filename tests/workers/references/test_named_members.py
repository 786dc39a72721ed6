"""A pool whose caller says which directory a member is: what the service's rows do."""

from pathlib import Path

import pytest

from service.errors import BadParameters, JobError
from tests.workers import factories
from tests.workers.references.test_pool import everywhere
from workers.modeling.training_record import read_exposures
from workers.references.layout import Pool, read_split
from workers.references.members import Materials, make_member
from workers.references.pool import open_pool, plan_pool
from workers.references.settling import purge_records, settle_members
from workers.references.tables import load_side

COUNT = 8
GONE = [f"d{at:05d}" for at in range(30, 40)]  # one person


def train(pool: Pool, number: int, materials: Materials, generation: int, name: str, gone: list[str]) -> None:
    directory = pool.directory / name
    directory.mkdir()
    planned = read_split(pool.directory).without(gone)
    record = make_member(directory, pool, number, generation, planned, materials, factories.context())
    assert record.records == len(read_exposures(directory))


@pytest.fixture
def named(materials: Materials, tmp_path: Path) -> Pool:
    """Eight members in directories of the caller's choice, and one that a worker left half made."""
    pool = plan_pool(tmp_path / "pool", materials, COUNT, seed=3)
    for number in range(COUNT):
        train(pool, number, materials, 0, f"member-{number:03d}-f1", [])
    (pool.directory / "member-005-f0").mkdir()
    return settle_members(pool.directory, [(f"member-{number:03d}-f1", 0) for number in range(COUNT)])


def test_members_are_what_the_caller_names(named: Pool) -> None:
    assert open_pool(named.directory).facts == named.facts
    assert [member.path for member in named.facts.members] == [f"member-{number:03d}-f1" for number in range(COUNT)]
    assert load_side(named, "gate").table.num_rows == 210
    assert (named.directory / "member-005-f0").is_dir()  # whose end is a row's affair


def test_deleted_people_leave_by_purge_and_by_retraining(named: Pool, materials: Materials) -> None:
    affected = read_split(named.directory).members_with(GONE)
    assert len(affected) == COUNT // 2
    others = [named.directory / f"member-{number:03d}-f1" for number in range(COUNT) if number not in affected]
    for _ in range(2):  # delivered twice
        purged = purge_records(named.directory, others, GONE)
    assert (purged.facts.excluded, purged.facts.split.records, purged.complete) == (10, 140, False)
    with pytest.raises(BadParameters, match="not all references are trained"):
        open_pool(named.directory)
    standing = [(f"member-{number:03d}-f1", 0) for number in range(COUNT)]
    with pytest.raises(JobError, match="refresh it first"):
        settle_members(named.directory, standing, GONE)
    for number in affected:
        train(named, number, materials, 1, f"member-{number:03d}-g1-f2", GONE)
        standing[number] = (f"member-{number:03d}-g1-f2", 1)
        for path in (named.directory / f"member-{number:03d}-f1").iterdir():
            path.unlink()
    settled = settle_members(named.directory, standing, GONE)
    assert not set(GONE) & everywhere(named.directory)
    assert [member.generation for member in settled.facts.members] == [int(n in affected) for n in range(COUNT)]
    assert settled.facts.excluded == 10
    assert open_pool(named.directory).facts == settled.facts


def test_a_held_out_person_leaves_the_tables(named: Pool) -> None:
    held_out = read_split(named.directory).held_out[:4].tolist()
    assert read_split(named.directory).holds((), held_out)
    standing = [(f"member-{number:03d}-f1", 0) for number in range(COUNT)]
    settled = settle_members(named.directory, standing, excluded_held_out=held_out)
    assert not read_split(named.directory).holds(held_out, held_out)
    assert load_side(settled, "gate").table.num_rows == 206
    assert settled.facts.split.held_out == 56


def test_the_seed_of_another_generation_is_another_member(named: Pool) -> None:
    standing = [(f"member-{number:03d}-f1", int(number == 2)) for number in range(COUNT)]
    with pytest.raises(JobError, match="made for another pool"):
        settle_members(named.directory, standing)
