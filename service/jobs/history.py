"""What a model's past deletion jobs say about those to come."""

from dataclasses import dataclass
from statistics import fmean, median

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.catalogue.methods import METHODS
from service.database import clock
from service.jobs.models import Attempt, Job
from service.registry.models import Model, Version

LEAST_DAYS = 30.0
"""A shorter past says too little about a year."""

USUAL_JOBS_A_DAY = 12 / 365
"""One a month: taken where a model has no past."""


@dataclass(frozen=True)
class History:
    """Jobs that published, people deleted in one, days the model is registered, seconds its training took.

    `job_cost`: what an approximate job that passed took for its attempts, in retrains. None: never seen.
    """

    jobs: int
    days: float
    subjects_per_job: float | None
    train_seconds: float | None
    job_cost: float | None

    def jobs_within(self, days: float) -> float:
        """How many jobs to expect in so many days."""
        rate = self.jobs / max(self.days, LEAST_DAYS) if self.jobs else USUAL_JOBS_A_DAY
        return rate * days


def history_of(session: Session, model: Model) -> History:
    """The past of a model, from its jobs and versions."""
    published = select(Job).where(Job.model_id == model.id, Job.new_version_id.is_not(None))
    jobs = list(session.scalars(published))
    people = [int(job.scope["subjects"]) for job in jobs if job.scope and job.scope.get("subjects")]
    seconds = _train_seconds(session, model)
    return History(
        jobs=len(jobs),
        days=(clock(session) - model.created_at).total_seconds() / 86400,
        subjects_per_job=fmean(people) if people else None,
        train_seconds=seconds,
        job_cost=_job_cost(session, [job.id for job in jobs], seconds),
    )


@dataclass(frozen=True)
class Tried:
    """One method in the last jobs of a model: judged attempts, those that passed, median share of a training."""

    runs: int
    passed: int
    share: float


_LAST = 20
_JUDGED = ("passed", "failed", "inconclusive", "released")


def tried_by(session: Session, model: Model) -> dict[str, Tried]:
    """By method, from its last judged attempts; nothing where no training of the model was timed."""
    seconds = _train_seconds(session, model)
    if not seconds:
        return {}
    jobs = select(Job.id).where(Job.model_id == model.id)
    query = select(Attempt).where(Attempt.job_id.in_(jobs), Attempt.state.in_(_JUDGED)).order_by(Attempt.started_at)
    by_method: dict[str, list[Attempt]] = {}
    for attempt in session.scalars(query):
        by_method.setdefault(attempt.method, []).append(attempt)
    found = {}
    for method, attempts in by_method.items():
        last = attempts[-_LAST:]
        spent = [float(a.result["seconds"]) / seconds for a in last if a.result and a.result.get("seconds")]
        if spent:
            found[method] = Tried(len(last), sum(a.state == "passed" for a in last), median(spent))
    return found


def _train_seconds(session: Session, model: Model) -> float | None:
    """Of the newest version whose training was timed; an edited version tells that of the training before."""
    query = select(Version.manifest).where(Version.model_id == model.id).order_by(Version.number.desc())
    timed = ((manifest.get("training") or {}).get("seconds") for manifest in session.scalars(query))
    return next((float(seconds) for seconds in timed if seconds), None)


def _job_cost(session: Session, job_ids: list[str], train_seconds: float | None) -> float | None:
    approximate = [spec.name for spec in METHODS if spec.kind == "approximate"]
    passed = select(Attempt.result).where(Attempt.job_id.in_(job_ids), Attempt.state == "passed")
    results = session.scalars(passed.where(Attempt.method.in_(approximate)))
    spent = [float(result["seconds"]) for result in results if result and result.get("seconds")]
    return fmean(spent) / train_seconds if spent and train_seconds else None
