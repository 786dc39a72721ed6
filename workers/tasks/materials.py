"""From rows to the doorstep of tensors: the problem that a method gets, from the job's model, data and forget set."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from service.database import reading
from service.datasets.records import RecordTable, open_records
from service.datasets.sources import dataset_digest
from service.errors import BadParameters, JobError
from service.registry import service as registry
from service.settings import get_settings
from workers.tasks.work import Work

if TYPE_CHECKING:
    from service.catalogue.recipes import Recipe
    from service.verification.qualification import Qualification
    from service.verification.schema import Use
    from service.verification.statistics import NotMeasurable
    from workers.modeling.problem import Context, Problem
    from workers.planning.calibrated import References
    from workers.planning.problems import Line
    from workers.references.tables import SideTable

MADE_WITH = ("recipe_digest", "holdout_digest", "packages")

log = structlog.get_logger(__name__)


def refuse_changed_data(work: Work) -> None:
    """The files are the owner's and lie where they were registered: nothing is exact about data that has changed since.

    Raises JobError naming the set.
    """
    dataset = work.dataset
    for name, path, digest in (
        ("training data", dataset.path, dataset.digest),
        ("held-out set", dataset.holdout_path, dataset.holdout_digest),
    ):
        if path is not None and dataset_digest(Path(path)) != digest:
            raise JobError(f"the {name} of {work.model.name} changed after registration; register the model again")


def training_records(work: Work) -> RecordTable:
    """Every record of the dataset that no earlier deletion has tombstoned."""
    from sqlalchemy import select

    from service.datasets.models import Tombstone

    table = open_records(Path(work.dataset.path), work.dataset.task, work.dataset.columns)
    with reading() as session:
        gone = list(session.scalars(select(Tombstone.record_id).where(Tombstone.model_id == work.model.id)))
    return table.without(gone) if gone else table


def held_out_records(work: Work) -> RecordTable | None:
    """The held-out set, where one was registered."""
    path = work.dataset.holdout_path
    return open_records(Path(path), work.dataset.task, work.dataset.columns) if path else None


def recipe_of(work: Work) -> "Recipe | None":
    """The recipe given at registration, else the one in the base version's training record."""
    from service.catalogue.recipes import Recipe
    from workers.modeling.training_record import read_record

    if work.model.recipe:
        return Recipe.model_validate(work.model.recipe)
    record = read_record(Path(work.base.path))
    return record.recipe if record else None


def line_of(work: Work) -> "Line":
    """The model line as its training left it, with the records that no deletion has tombstoned."""
    from workers.planning.problems import open_line

    held_out = held_out_records(work)
    digest = work.dataset.holdout_digest
    return open_line(Path(work.base.path), work.model.task, training_records(work), held_out, digest)


def problem_of(work: Work, kind: str) -> "Problem":
    """The unlearning problem of the job: base weights, forget, retain and the selection quarter of the held-out set.

    `kind` of the method that gets it: an approximate edit deletes canaries along with the people.
    """
    from workers.planning.problems import build_problem

    companions = work.policy.verification.companions if kind == "approximate" else None
    source = recipe_of(work), work.dataset.digest, work.dataset.columns
    problem = build_problem(line_of(work), work.forget_ids(), *source, companions)
    return replace(problem, references=method_references_of(work)) if kind == "approximate" else problem


def method_references_of(work: Work) -> "SideTable | None":
    """The methods' side of the model's pool; None where none can be used, or all of it is the gate's."""
    with reading() as session:
        row = registry.pool_of(session, work.model)
    if row is None or not row.usable:
        return None
    # Planning asks too, in a process that does without torch where no pool makes it needed.
    from workers.references.pool import open_pool
    from workers.references.tables import load_side

    try:
        pool = open_pool(row.path, work.model.task, row.data_digest, work.dataset.holdout_digest)
        return load_side(pool, "method") if pool.facts.sides.get("method") else None
    except BadParameters as error:
        log.warning("references.unusable", pool=row.id, detail=error.detail)
        return None


def qualifications_of() -> "list[Qualification]":
    """Every readable document under the home's `qualifications`, newest first."""
    from service.verification.qualification import load_folder

    return load_folder(get_settings().home / "qualifications")


def use_of(work: Work) -> "Use":
    """What the job is about to do, as qualifications are matched with."""
    from workers.planning.qualifying import use_of as made

    scope, digests = work.job.scope or {}, (work.dataset.digest, work.dataset.holdout_digest)
    return made(work.model.task, recipe_of(work), digests, work.policy, scope["records"])


def made_with(work: Work) -> dict[str, Any]:
    """What a candidate of the job is made with beside data, policy and code: digests of recipe and held-out set, and
    versions of packages. Kept with the attempt, since the model can be registered with others before it is judged."""
    return use_of(work).model_dump(include=set(MADE_WITH))


def references_of(work: Work) -> "References | NotMeasurable":
    """The gate's side of the model's pool, or why there is none: a pool is no reason for a job to fail."""
    from service.verification.statistics import NotMeasurable
    from service.verification.verdict import NOT_RUN
    from workers.planning.calibrated import NO_REFERENCES, open_references

    with reading() as session:
        pool = registry.pool_of(session, work.model)
    if pool is None:
        return NO_REFERENCES
    if not pool.usable:
        return NotMeasurable(f"{NOT_RUN}the reference pool is not ready, but {pool.state}")
    try:
        # The data may have been compacted since the pool was planned, and a reserve in place of a held-out set grows
        # smaller with each of its people who is deleted.
        return open_references(pool.path, work.model.task, pool.data_digest, work.dataset.holdout_digest)
    except BadParameters as error:
        log.warning("references.unusable", pool=pool.id, detail=error.detail)
        return NotMeasurable(f"{NOT_RUN}the reference pool cannot be used with this data")


def context_of(work: Work, seed: int) -> "Context":
    """Device, seed, threads, progress into the job row, cancellation by the requests' rows."""
    from workers.modeling.devices import resolve_device, seed_everything
    from workers.modeling.problem import Context

    settings = get_settings()
    seed_everything(seed, settings.threads)
    return Context(
        device=resolve_device(settings.device),
        seed=seed,
        threads=settings.threads,
        progress=work.progress_reporter(),
        cancelled=_Abandoned(work.job.id),
    )


class _Abandoned:
    """Asks the database at most twice a second, since methods ask at every step."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._next = 0.0

    def __call__(self) -> bool:
        from service.jobs.service import is_abandoned

        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + 0.5
        return is_abandoned(self._job_id)
