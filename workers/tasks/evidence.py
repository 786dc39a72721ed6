"""The facts of a job as the report wants them: read from rows and files, without a session or a person's identifier."""

from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.database import reading
from service.jobs import service
from service.jobs.models import Attempt
from service.registry.models import Artefact, Version
from service.registry.sequence import since_exact
from service.reports.facts import AttemptFacts, JobEvidence
from service.reports.ledger import alpha_of
from service.reports.schema import (
    ArtefactPart,
    DatasetPart,
    MadeWithPart,
    RetiredPart,
    ReviewPart,
    SequencePart,
    VersionPart,
)
from service.reports.wagers import Published, sequence_of
from service.verification.release import PUBLISHED_STATES
from service.verification.schema import Evaluation
from workers.tasks.plan import training_facts
from workers.tasks.work import Work

_UNITS = {"image-classification": "images", "text-classification": "texts", "causal-lm": "texts"}


def evidence_of(work: Work) -> JobEvidence:
    """Everything the job's report parts are made of, after publication."""
    job, scope = work.job, work.job.scope or {}
    with reading() as session:
        new = session.get(Version, job.new_version_id) if job.new_version_id else None
        theirs = (Artefact.job_id == job.id) | (Artefact.condemned_by == job.id)
        artefacts = list(session.scalars(select(Artefact).where(theirs)))
    seconds = training_facts(Path(work.base.path)).get("seconds")
    return JobEvidence(
        job_id=job.id,
        model=work.model.name,
        task=work.model.task,
        requests=len(scope["requests"]),
        records=scope["records"],
        subjects=scope["subjects"],
        started_at=job.started_at,
        dataset=_dataset(work, scope, new),
        base_version=VersionPart(number=work.base.number, digest=work.base.digest),
        new_version=VersionPart(number=new.number, digest=new.digest) if new else None,
        policy=job.policy,
        policy_digest=job.policy_digest,
        plan=job.plan,
        attempts=[_attempt(row, work, seconds) for row in work.attempts()],
        review=ReviewPart.model_validate(job.review) if new and job.review else None,
        sequence=_sequence(work, new) if new else None,
        published_at=new.published_at if new else None,
        retired=_retired(work) if new else None,
        artefacts=[
            ArtefactPart(id=a.id, kind=a.kind, digest=a.digest, destroy_by=a.destroy_by, destroyed_at=a.destroyed_at)
            for a in artefacts
        ],
    )


def _dataset(work: Work, scope: dict[str, Any], new: Version | None) -> DatasetPart:
    before = scope["dataset_records"] - scope["tombstones"]
    after = before - (scope["records"] if new else 0)
    unit, units = _units(work, before, after, new)
    return DatasetPart(
        digest_before=work.dataset.digest,
        digest_after=work.dataset.digest,  # the file stays; tombstones keep the records out of every training
        records_before=before,
        records_after=after,
        unit=unit,
        units_before=units[0],
        units_after=units[1],
    )


def _units(work: Work, before: int, after: int, new: Version | None) -> tuple[str | None, tuple[int, int]]:
    """Tokens where both versions' trainings counted them, else images or texts."""
    tokens = [training_facts(Path(version.path)).get("tokens") for version in (work.base, new or work.base)]
    if work.model.task != "image-classification" and tokens[0] and tokens[1]:
        return "tokens", (tokens[0], tokens[1])
    return _UNITS.get(work.model.task), (before, after)


def _attempt(row: Attempt, work: Work, train_seconds: float | None) -> AttemptFacts:
    result = row.result or {}
    seconds = result.get("seconds")
    return AttemptFacts(
        number=row.number,
        method=row.method,
        params=result.get("params") or row.params,
        seed=row.seed,
        state=row.state,
        code_version=result.get("code_version"),
        made_with=MadeWithPart.model_validate(result["made_with"]) if "made_with" in result else None,
        device=work.job.device,
        seconds=seconds,
        fraction_of_retrain=seconds / train_seconds if seconds and train_seconds else None,
        peak_memory_bytes=result.get("peak_memory_bytes"),
        digest=row.candidate_digest,
        notes=result.get("notes") or [],
        curve=result.get("curve") or [],
        verification=Evaluation.model_validate(row.verification) if row.verification else None,
        error=(row.error or {}).get("detail"),
    )


def _retired(work: Work) -> RetiredPart | None:
    with reading() as session:
        old = session.get_one(Version, work.base.id)
    if old.retired_at is None:
        return None
    return RetiredPart(
        number=old.number,
        digest=old.digest,
        retired_at=old.retired_at,
        destroy_by=old.destroy_by,
        destroyed_at=old.destroyed_at,
    )


def _sequence(work: Work, new: Version) -> SequencePart | None:
    """The wager over publications up to the new version; None where it is exact or nothing was ever guessed at."""
    with reading() as session:
        publications = since_exact(session, new)
        jobs = {one.version.id: service.attempts_of(session, str(one.version.job_id)) for one in publications}
    told = []
    for one in publications:
        rows = [row for row in jobs[one.version.id] if row.state != "superseded"]
        spent = sum(alpha_of(Evaluation.model_validate(row.verification)) for row in rows if row.verification)
        told.append(Published(one.version.number, len(rows), spent, one.guesses, one.right))
    return sequence_of(told, work.policy.verification.alpha)


def score_files(work: Work) -> dict[str, Path] | None:
    """Score tables of the attempt behind the published version, by model; None where nothing was scored."""
    chosen = [row for row in work.attempts() if row.state in PUBLISHED_STATES]
    folder = Path(str((chosen[-1].result or {}).get("scores", ""))) if chosen else None
    if folder is None or not folder.is_dir():
        return None
    return {path.stem: path for path in sorted(folder.glob("*.arrow"))}
