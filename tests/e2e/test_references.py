"""A reference pool built by two real workers, one of them killed; a deletion; the pool without the deleted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from pyarrow import parquet
from sqlalchemy import select

from service import database
from service.database import clock, reading
from service.registry import pools
from service.registry import service as registry
from service.registry.models import Artefact, Model, ReferencePool
from tests.e2e.world import POLICY, RECIPE, Assets, World, here, write_digits
from workers.references.layout import Pool, read_split, read_table
from workers.references.pool import open_pool

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

COUNT = 8
TINY = RECIPE.replace("[16, 32]", "[8, 16]").replace("embedding_size = 16", "embedding_size = 8")


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """Forty people with ten digits each, a model trained for two epochs, and a recipe of one for the references."""
    folder = tmp_path_factory.mktemp("tiny")
    train, holdout = write_digits(folder, people=40)
    parquet.write_table(parquet.read_table(holdout).slice(0, 120), holdout)
    (folder / "recipe.toml").write_text(TINY.replace("epochs = 30", "epochs = 2"))
    (folder / "quick.toml").write_text(TINY.replace("epochs = 30", "epochs = 1"))
    (folder / "policy.toml").write_text(POLICY)
    options = ["--recipe", str(folder / "recipe.toml"), "--data", str(train), "--holdout", str(holdout)]
    here("train", *options, "--out", str(folder / "model"))
    return Assets(folder, train, holdout, folder / "model")


@pytest.fixture(scope="module", autouse=True)
def _connections(world: World) -> Iterator[None]:
    """This process reads the stack's database too, and must let go of it before the stack ends."""
    yield
    database.close()


@pytest.fixture
def preparing(world: World, assets: Assets) -> Iterator[subprocess.Popen[str]]:
    """`lethe models prepare` in a process of its own."""
    world.register("digits", assets)
    options = ["--references", str(COUNT), "--recipe", str(assets.folder / "quick.toml"), "--seed", "3", "--json"]
    command = [sys.executable, "-m", "service.cli.main", "models", "prepare", "digits", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_pool_survives_a_worker_and_forgets_with_its_model(
    world: World, assets: Assets, preparing: subprocess.Popen[str]
) -> None:
    _kill_one_of_two(world)
    world.poll(lambda: preparing.poll() is not None, 240, "the pool")
    out, said = preparing.communicate()
    assert preparing.returncode == 0, said
    built = json.loads(out)
    assert (built["state"], built["done"], built["generation"]) == ("ready", COUNT, 0)
    assert f"of {COUNT}, 2 workers" in said
    path = Path(built["path"])
    assert open_pool(path, "image-classification").facts.count == COUNT
    assert _claims(world) > COUNT  # the killed one's member was trained again
    assert list((world.home / "models" / "digits").glob("*/lineage/duplicates.parquet"))

    gone = _records_of(assets, "t-person-007")
    holding = {number for number, seen in _trained_on(path).items() if seen & gone}
    assert len(holding) == COUNT // 2
    before = _directories(world)
    done = world.wait(world.post("t-person-007", model="digits")["id"])
    job_id = done["targets"][0]["job_id"]
    assert done["targets"][0]["outcome"] == "published"

    refreshed = world.poll(lambda: _ready_again(world), 180, "the refresh")
    after = _directories(world)
    assert {number for number in after if after[number] != before[number]} == holding
    assert not {number for number, seen in _trained_on(path).items() if seen & gone}
    assert not gone & _everywhere(path)
    assert refreshed.facts.excluded == len(gone)
    _nothing_outlives(world, path, {before[number] for number in holding}, job_id)


def _kill_one_of_two(world: World) -> None:
    """kill -9 of one worker with all its children, while two train side by side and something is done already."""
    states = "SELECT state, count(*) FROM reference_members GROUP BY state"

    def both_busy() -> bool:
        found = dict(map(tuple, world.sql(states)))
        return found.get("running") == 2 and found.get("ready", 0) >= 1

    world.poll(both_busy, 120, "two workers side by side")
    worker = next(child for child in world.stack.children if child.name == "worker-gpu-1")
    os.killpg(worker.process.pid, signal.SIGKILL)


def _claims(world: World) -> int:
    return int(world.sql("SELECT sum(fence) FROM reference_members")[0][0])


def _records_of(assets: Assets, person: str) -> set[str]:
    table = parquet.read_table(assets.train, columns=["record_id", "subject_id"])
    return set(table.filter(pc.equal(table["subject_id"], person))["record_id"].to_pylist())


def _directories(world: World) -> dict[int, str]:
    """Path of each member by number."""
    query = "SELECT m.number, a.path FROM reference_members m JOIN artefacts a ON a.id = m.artefact_id"
    return {row[0]: row[1] for row in world.sql(query)}


def _trained_on(path: Path) -> dict[int, set[str]]:
    """The record ids that each member of the pool says it was trained on."""
    facts = open_pool(path).facts
    files = {member.number: path / member.path / "training_records.parquet" for member in facts.members}
    return {number: set(parquet.read_table(file)["record_id"].to_pylist()) for number, file in files.items()}


def _everywhere(path: Path) -> set[str]:
    """Every record id in the plan, the scores and the tables."""
    found = set(read_split(path).train.tolist())
    for file in (*path.glob("*/scores.arrow"), path / "gate.arrow"):
        found |= set(read_table(file)["record_id"].to_pylist())
    return found


def _ready_again(world: World) -> Pool | None:
    with reading() as session:
        model = session.scalars(select(Model).where(Model.name == "digits")).one()
        found = registry.pool_of(session, model)
    return open_pool(found.path) if found is not None and found.usable and found.generation == 1 else None


def _nothing_outlives(world: World, path: Path, stale: set[str], job_id: str) -> None:
    """Whatever the deletion condemned is destroyed long before its date, and a sweep behind it finds nothing more."""
    with reading() as session:
        later = clock(session) + timedelta(days=30)
    registry.sweep_destroyed(later)
    with reading() as session:
        rows = list(session.scalars(select(Artefact).where(Artefact.kind.in_((pools.MEMBER, pools.TABLE)))))
        pool = session.scalars(select(ReferencePool)).one()
    live = [row for row in rows if row.destroyed_at is None]
    assert all(row.destroy_by is None and Path(row.path).exists() for row in live)
    assert len(live) == COUNT + 1
    condemned: list[Any] = [row for row in rows if row.condemned_by == job_id]
    assert {row.path for row in condemned} >= stale
    assert all(row.destroyed_at <= row.destroy_by for row in condemned)
    assert not any(Path(row).exists() for row in stale)
    members = {entry.name for entry in path.iterdir() if entry.is_dir()}
    assert members == {Path(row.path).name for row in live if row.kind == pools.MEMBER}
    assert pool.state == "ready"
