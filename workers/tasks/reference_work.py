"""The heavy part of the tasks of a reference pool, in a process of its own: from rows to the engine and back."""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from service import queue
from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.database import clock, reading
from service.datasets import service as datasets
from service.datasets.models import Dataset
from service.datasets.records import open_records
from service.datasets.sources import dataset_digest
from service.errors import JobError, LeaseLost
from service.references import building, leases
from service.registry import destruction, files, repository
from service.registry.models import Model, ReferencePool, Version
from service.registry.recipes import recipe_of
from service.settings import get_settings

if TYPE_CHECKING:
    from workers.modeling.problem import Context, Progress
    from workers.planning.problems import Line
    from workers.references.layout import Pool
    from workers.references.members import Materials

_PROGRESS_SECONDS = 1.0


def run(claim: leases.Claim) -> None:
    """Do what the claim is for. Raises LeaseLost where another worker has taken over."""
    steps = {
        queue.TASK_PLAN_REFERENCES: _plan,
        queue.TASK_TRAIN_REFERENCE: _train,
        queue.TASK_REFERENCE_TABLES: _build_tables,
    }
    steps[claim.task](_Work(claim))


@dataclass(frozen=True)
class _Work:
    """A claim and what hangs on it. Rows are read once, after the claim was made."""

    claim: leases.Claim

    @cached_property
    def pool(self) -> ReferencePool:
        with reading() as session:
            return session.get_one(ReferencePool, self.claim.pool_id)

    @cached_property
    def model(self) -> Model:
        with reading() as session:
            return session.get_one(Model, self.pool.model_id)

    @cached_property
    def version(self) -> Version:
        """The version that serves now: its tokenizer and its labels are those of the one that the pool began with."""
        with reading() as session:
            return repository.serving_version(session, self.model)

    @cached_property
    def dataset(self) -> Dataset:
        with reading() as session:
            return session.get_one(Dataset, self.pool.dataset_id)

    @cached_property
    def forgotten(self) -> set[str]:
        """Records that no training may see any more."""
        with reading() as session:
            return datasets.tombstones(session, self.model.id)

    @property
    def forgotten_held_out(self) -> set[str]:
        """The same among the held-out records: those that are a reserve of the data, and no file of their own."""
        return set() if self.dataset.holdout_path is not None else self.forgotten

    @cached_property
    def line(self) -> "Line":
        from workers.planning.problems import open_line

        rows = self.dataset
        data = open_records(Path(rows.path), rows.task, rows.columns).without(self.forgotten)
        held_out = open_records(Path(rows.holdout_path), rows.task, rows.columns) if rows.holdout_path else None
        return open_line(Path(self.version.path), rows.task, data, held_out, rows.holdout_digest)

    def materials(self) -> "Materials":
        from workers.references.members import Materials

        recipe = Recipe.model_validate(self.pool.recipe) if self.pool.recipe else recipe_of(self.model, self.version)
        if recipe is None:
            raise JobError(f"nothing says any more how {self.model.name} is trained; prepare it with --recipe")
        return Materials(
            model_dir=Path(self.version.path),
            data=self.line.people,
            held_out=self.line.held_out,
            recipe=recipe,
            data_digest=self.pool.dataset_digest,
            holdout_digest=self.line.holdout_digest,
            columns=self.dataset.columns,
        )

    def refuse_changed_data(self) -> None:
        """Raises JobError where the files are not those that were registered."""
        for path, digest in (
            (self.dataset.path, self.dataset.digest),
            (self.dataset.holdout_path, self.dataset.holdout_digest),
        ):
            if path is not None and dataset_digest(Path(path)) != digest:
                raise JobError(f"the data of {self.model.name} changed after registration; register the model again")

    def context(self) -> "Context":
        from workers.modeling.devices import resolve_device
        from workers.modeling.problem import Context

        settings = get_settings()
        return Context(resolve_device(settings.device), threads=settings.threads, progress=_Reporter(self.claim))


class _Reporter:
    """Stores progress at most once a second. Raises LeaseLost."""

    def __init__(self, claim: leases.Claim) -> None:
        self._claim, self._last = claim, 0.0

    def __call__(self, progress: "Progress") -> None:
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS:
            return
        self._last = now
        if not leases.renew(self._claim, progress=min(max(progress.fraction, 0.0), 1.0)):
            raise LeaseLost(f"reference pool {self._claim.pool_id}: another worker has taken over")


def _plan(work: _Work) -> None:
    from workers.references.pool import plan_pool

    work.refuse_changed_data()
    _know_duplicates(work)
    pool = work.pool
    made = plan_pool(Path(pool.path), work.materials(), pool.count, pool.seed, pool.reserved).facts
    sides = {str(side): pairs for side, pairs in made.sides.items()}
    building.planned(work.claim, sides, made.split.records, made.holdout_digest)


def _know_duplicates(work: _Work) -> None:
    """A model that was trained elsewhere has no table of near-duplicates: it is made now, from the data.

    Not where the model's own recipe switches the search off.
    """
    from workers.lineage.duplicates import find_duplicates, read_duplicates, write_duplicates

    own = recipe_of(work.model, work.version)
    if own is not None and own.lineage.duplicates == "off":
        return
    folder = Path(work.version.path) / LINEAGE
    if read_duplicates(folder) is not None:
        return
    found = find_duplicates(work.line.people)
    with leases.fenced(work.claim) as session:
        folder.mkdir(mode=0o700, exist_ok=True)
        repository.track_lineage(session, session.get_one(Version, work.version.id), clock(session))
    write_duplicates(found, folder)


def _train(work: _Work) -> None:
    from workers.modeling.progress import timed
    from workers.references.layout import read_split
    from workers.references.members import make_member

    began, claim, directory = time.monotonic(), work.claim, Path(work.claim.directory)
    work.refuse_changed_data()
    pool = _engine(work)
    planned = read_split(pool.directory).without(work.forgotten, work.forgotten_held_out)
    directory.mkdir()
    record = make_member(
        directory, pool, claim.number, claim.generation, planned, work.materials(), timed(work.context())
    )
    files.flush_directory(directory)
    building.trained(claim, record.weights_digest, round(time.monotonic() - began, 3))


def _engine(work: _Work) -> "Pool":
    from workers.references.layout import Pool, read_facts

    directory = Path(work.pool.path)
    return Pool(directory, read_facts(directory))


def _build_tables(work: _Work) -> None:
    from workers.references.settling import purge_records, settle_members

    claim, directory = work.claim, Path(work.pool.path)
    if building.purge_due(claim):
        purge_records(directory, _clear(claim), work.forgotten, work.forgotten_held_out)
        building.purged(claim)
    standing = building.standing(claim)
    if standing is None:
        return
    _clear(claim)
    building.announce_tables(claim, _table_names(_engine(work)))
    settled = settle_members(directory, standing, work.forgotten, work.forgotten_held_out)
    building.settled(claim, settled.facts.tables)


def _clear(claim: leases.Claim) -> list[Path]:
    """Destroy what is of no use any more; answers the directories of the whole members."""
    whole, leftovers = building.whole_members(claim)
    with reading() as session:
        now = clock(session)
    destruction.destroy_early(leftovers, now)
    return whole


def _table_names(pool: "Pool") -> list[str]:
    from workers.references.layout import SIDES
    from workers.references.tables import LANGUAGE, table_name

    kinds = (False, True) if pool.facts.task == LANGUAGE else (False,)
    return [table_name(side, per_byte) for side in SIDES if pool.facts.sides[side] for per_byte in kinds]
