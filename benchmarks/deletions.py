"""A thousand people are forgotten one after another: does anything outlive its date, or come back into a training?

A simulation of the calendar, of nothing else: models are trained and edited, versions published and swept by the code
of the service, on a real database, six hours of simulated time apart. After every deletion it is checked that whatever
has passed its destroy-by date is gone from the disk, that no directory of weights or lineage lies there without a row
that answers for it, and that no tombstoned record is in the order log, the records or the reserve of the new version.
"""

import os
import tempfile
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sqlalchemy import select

from benchmarks.processes import checked, environment
from benchmarks.record import Result, Spread, Target
from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.database import clock, new_id, reading, transaction
from service.datasets import service as datasets
from service.datasets.records import open_records
from service.registry import files
from service.registry import service as registry
from service.registry.models import Artefact, Model, Version
from service.settings import get_settings
from service.verification.policy import Policy
from workers.demo.digits import digits
from workers.lineage.reserve import read_reserve
from workers.lineage.store import ModelHistory
from workers.modeling.problem import Context
from workers.modeling.recipe import load_recipe
from workers.modeling.training_record import read_record
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.costs import exact_options
from workers.planning.ladder import Situation, plan_ladder
from workers.planning.problems import build_problem, open_line

NAME, TASK = "digits", "image-classification"
DELETIONS, QUICK = 1000, 30
STEP = timedelta(hours=6)
APPROXIMATE_EVERY = 10
RECIPE = """
[model]
task = "image-classification"
config = { model_type = "resnet", num_channels = 1, embedding_size = 8, hidden_sizes = [8], depths = [1], \
layer_type = "basic" }
[training]
epochs = 1
batch_size = 64
learning_rate = 3e-3
"""
COLUMNS = (
    "deletions",
    "methods",
    "share of a training",
    "seconds each",
    "destroyed",
    "too late",
    "came back",
    "strays",
)


class Simulation:
    """The world: a registered model on data in which every record is another person's."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "train.parquet"
        _write(self.data)
        (folder / "recipe.toml").write_text(RECIPE)
        checked("db", "upgrade")
        options = ["--recipe", str(folder / "recipe.toml"), "--data", str(self.data), "--out", str(folder / "model")]
        checked("train", *options)
        checked("models", "register", NAME, "--path", str(folder / "model"), "--task", TASK, "--data", str(self.data))
        self.recipe: Recipe = load_recipe(folder / "recipe.toml")
        self.records = open_records(self.data, TASK)
        self.folder, self.gone = folder, set[str]()
        with reading() as session:
            self.now = clock(session)
        self.late = self.back = self.strays = self.destroyed = 0
        self.methods: Counter[str] = Counter()
        self.shares: list[float] = []

    def base(self) -> tuple[Model, Version]:
        """The model and what it serves."""
        with reading() as session:
            model = session.scalars(select(Model)).one()
            return model, session.get_one(Version, model.serving_version_id)

    def people(self) -> list[str]:
        """Ids of the records that were trained on, in a fixed random order."""
        reserve = read_reserve(Path(self.base()[1].path) / LINEAGE)
        ids = [str(name) for name in self.records.ids if name not in reserve]
        return [str(name) for name in np.random.default_rng(1).permutation(ids)]

    def forget(self, number: int, record_id: str) -> None:
        """One deletion: plan, attempt, publish, sweep, check."""
        model, base = self.base()
        line = open_line(Path(base.path), TASK, self.records.without(self.gone), None, None)
        problem = build_problem(line, [record_id], self.recipe, datasets_digest(model), {})
        method, params = self._method(number, Path(base.path), record_id)
        candidate = self.folder / "candidates" / str(number)
        context = Context(torch.device("cpu"), seed=number)
        result = run_attempt(method, params, problem, context, candidate)
        self.methods[method] += 1
        self._publish(model, base, result, record_id)
        self.now += STEP
        self.destroyed += registry.sweep_destroyed(self.now)
        self._check()

    def _method(self, number: int, base: Path, record_id: str) -> tuple[str, dict[str, Any]]:
        """Mostly what the planner says; now and then an edit, so that its lineage is followed as well."""
        record = read_record(base)
        case = Situation(
            task=TASK,
            forget_records=1,
            forget_subjects=1,
            data_records=len(self.records) - len(self.gone),
            has_held_out=True,
            exact=exact_options(base, self.recipe, [record_id]),
            edits=record.edits if record else 0,
        )
        if number % APPROXIMATE_EVERY == APPROXIMATE_EVERY - 1:
            return "nabla_tau", {"passes": 1, "min_steps": 1}
        plan = plan_ladder(Policy(), case)
        chosen = plan.rungs[0].method
        self.shares.append(next(entry.share for entry in plan.estimates if entry.method == chosen))
        return chosen, {}

    def _publish(self, model: Model, base: Version, result: AttemptResult, record_id: str) -> None:
        home = registry.version_path(NAME, result.digest)
        files.flush_directory(Path(result.out))
        home.parent.mkdir(parents=True, exist_ok=True)
        os.rename(result.out, home)
        job = new_id("job")
        with transaction() as session:
            registry.publish_version(
                session,
                job_id=job,
                model_id=model.id,
                base_version_id=base.id,
                digest=result.digest,
                path=home,
                method=result.method,
                verification={"verdict": "pass", "grade": "A"},
                destroy_after=Policy().retention.destroy_retired_after_timedelta,
                now=self.now,
            )
            datasets.add_tombstones(session, model.id, job, [record_id], self.now)
        self.gone.add(record_id)

    def _check(self) -> None:
        with reading() as session:
            rows: list[Version | Artefact] = [*session.scalars(select(Version)), *session.scalars(select(Artefact))]
        self.late += sum(_outlived(row, self.now) for row in rows)
        known = {Path(row.path) for row in rows if row.destroyed_at is None}
        there = {path for path in (get_settings().home / "models" / NAME).iterdir() if path.is_dir()}
        self.strays += len(there - known) + len({path / LINEAGE for path in there if (path / LINEAGE).exists()} - known)
        serving = Path(self.base()[1].path)
        history = ModelHistory(serving)
        held = np.isin(history.records.ids, sorted(self.gone)).sum()
        self.back += int(held) + len(read_reserve(serving / LINEAGE) & self.gone)


def datasets_digest(model: Model) -> str:
    """The digest that the model's data was registered with."""
    from service.datasets.models import Dataset

    with reading() as session:
        return session.get_one(Dataset, model.dataset_id).digest


def _outlived(row: Version | Artefact, now: datetime) -> bool:
    due = row.destroy_by is not None and row.destroy_by <= now
    return due and (row.destroyed_at is None or (Path(row.path).exists() and row.destroyed_at is not None))


def _write(path: Path) -> None:
    images = digits(179, 1)[0]
    pq.write_table(
        pa.table(
            {
                "record_id": [f"r{at:04d}" for at in range(len(images))],
                "subject_id": [f"p{at:04d}" for at in range(len(images))],
                "image": [{"bytes": image.image, "path": None} for image in images],
                "label": [image.label for image in images],
            }
        ),
        path,
    )


def run(quick: bool = False) -> Result:
    """Simulate; `quick` does thirty deletions."""
    count = QUICK if quick else DELETIONS
    result = Result("deletions", f"{count:,} people forgotten one after another, {STEP} apart", 1, COLUMNS)
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as name, environment(LETHE_HOME=str(Path(name) / "home")):
        get_settings.cache_clear()
        torch.set_num_threads(1)
        world = Simulation(Path(name))
        seconds = []
        for number, record_id in enumerate(world.people()[:count]):
            began = time.perf_counter()
            world.forget(number, record_id)
            seconds.append(time.perf_counter() - began)
            if number % 100 == 99:
                print(f"  {number + 1} of {count} deletions, {sum(seconds):.0f} s", flush=True)
        _tell(result, world, count, Spread.of(seconds))
    get_settings.cache_clear()
    return result


def _tell(result: Result, world: Simulation, count: int, seconds: Spread) -> None:
    share = Spread.of(world.shares)
    methods = ", ".join(f"{number} {name}" for name, number in world.methods.most_common())
    cells = [f"{count:,}", methods, share.text(2), seconds.text(2), f"{world.destroyed:,}"]
    result.rows.append([*cells, str(world.late), str(world.back), str(world.strays)])
    result.measurements.append(
        {"deletions": count, "methods": dict(world.methods), "share_of_training": share, "seconds": seconds}
        | {"destroyed": world.destroyed, "outlived": world.late, "came_back": world.back, "strays": world.strays}
    )
    for name, value in (
        ("artefacts past their destroy-by date", world.late),
        ("tombstoned records in a later log, record table or reserve", world.back),
        ("directories that no row answers for", world.strays),
    ):
        result.targets.append(Target(name, value, 0))
