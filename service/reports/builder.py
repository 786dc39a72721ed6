"""From facts to the report: pure assembly, no files, no clock, no database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from service.reports.facts import AttemptFacts, JobEvidence, RequestFacts, TargetFacts
from service.reports.limits import count, limits_of
from service.reports.schema import (
    MIRRORED,
    AttemptPart,
    ClockPart,
    LineagePart,
    LogProofPart,
    NearDuplicatesPart,
    PlanPart,
    PlotPart,
    PolicyPart,
    PublicationPart,
    Report,
    RequestPart,
    ScopePart,
    SignaturePart,
    TargetPart,
)
from service.reports.verify import SIGNED
from service.verification.qualification import rules_digest
from service.verification.schema import Evaluation

LEAF_RULE = "SHA-256(0x00 || RFC 8785 JSON of id, kind, at, actor, ref, data)"
CHAIN_RULE = "SHA-256(previous_chain_hash || leaf_hash), over raw bytes"


def build_report(
    request: RequestFacts,
    targets: Sequence[tuple[TargetFacts, JobEvidence]],
    events: Sequence[dict[str, Any]],
    plots: Sequence[PlotPart],
    generated_at: datetime,
    generator: str,
    signing_key_id: str,
) -> Report:
    """The report of a request whose targets have all ended. `events`: sealed, each with previous_chain_hash."""
    parts = [_target(facts, job) for facts, job in targets]
    outcomes = {facts.outcome for facts, _ in targets}
    outcome = next(name for name in ("published", "already_deleted", "no_records") if name in outcomes)
    top = {name: getattr(parts[0], name) for name in MIRRORED} if len(parts) == 1 else {}
    return Report(
        generated_at=generated_at,
        generator=generator,
        request=RequestPart(id=request.id, pseudonym=request.pseudonym, regulation=request.regulation, outcome=outcome),
        clock=_clock(request),
        targets=parts,
        plots=list(plots),
        log_proof=LogProofPart(leaf=LEAF_RULE, chain=CHAIN_RULE, events=list(events)),
        signatures=[SignaturePart(key_id=signing_key_id, covers=list(SIGNED))],
        **top,
    )


def _clock(request: RequestFacts) -> ClockPart:
    day = 86400.0
    return ClockPart(
        received_at=request.received_at,
        acknowledged_at=request.acknowledged_at,
        due_at=request.due_at,
        extended_at=request.extended_at,
        completed_at=request.completed_at,
        days_taken=round((request.completed_at - request.received_at).total_seconds() / day, 4),
        days_left=round((request.due_at - request.completed_at).total_seconds() / day, 4),
        in_time=request.completed_at <= request.due_at,
    )


def _target(facts: TargetFacts, job: JobEvidence) -> TargetPart:
    published = job.published if facts.outcome == "published" else None
    # What a run did for others is no part of the answer to somebody of whom it found nothing.
    attempts = [_attempt(attempt, published) for attempt in job.attempts] if published else []
    verification = published.verification if published else None
    return TargetPart(
        model=facts.model,
        task=job.task,
        outcome=facts.outcome,
        job_id=facts.job_id,
        started_at=job.started_at,
        scope=ScopePart(
            decision=_decision(facts, job),
            records=facts.records,
            job_records=job.records if published else 0,
            job_subjects=job.subjects if published else 0,
            job_requests=job.requests,
            near_duplicates=_near_duplicates(verification),
        ),
        lineage=_lineage(job, published),
        policy=_policy(job) if published else None,
        plan=PlanPart.model_validate(job.plan) if published and job.plan else None,
        attempts=attempts,
        verification=verification,
        grade=verification.grade if verification else None,
        publication=_publication(job) if published else None,
        sequence=job.sequence if published else None,
        limits=limits_of(facts, job),
        plots=list(job.plots) if published else [],
    )


def _policy(job: JobEvidence) -> PolicyPart:
    return PolicyPart(digest=job.policy_digest, document=job.policy, rules_digest=rules_digest(job.policy))


def _near_duplicates(verification: Evaluation | None) -> NearDuplicatesPart:
    retained = verification.records.near_duplicates if verification else None
    return NearDuplicatesPart(computed=retained is not None, retained=retained)


def _decision(facts: TargetFacts, job: JobEvidence) -> str:
    total = count(job.dataset.records_before, "record")
    if facts.outcome == "no_records":
        return f"No records found: none of the {total} in the training data of {facts.model} belong to this subject."
    if facts.outcome == "already_deleted":
        return (
            f"Already dealt with: the subject's records in the training data of {facts.model} were taken out of "
            "training by an earlier request."
        )
    verb = "belongs" if facts.records == 1 else "belong"
    return (
        f"In scope: {facts.records:,} of the {total} in the training data of {facts.model} {verb} to this subject, "
        "by identifier; all of them were taken out."
    )


def _lineage(job: JobEvidence, published: AttemptFacts | None) -> LineagePart:
    if published:
        return LineagePart(dataset=job.dataset, base_version=job.base_version, new_version=job.new_version)
    before = job.dataset
    unchanged = before.model_copy(
        update={
            "digest_after": before.digest_before,
            "records_after": before.records_before,
            "units_after": before.units_before,
        }
    )
    return LineagePart(dataset=unchanged, base_version=job.base_version, new_version=None)


def _attempt(attempt: AttemptFacts, published: AttemptFacts | None) -> AttemptPart:
    told = attempt.verification
    return AttemptPart(
        **attempt.model_dump(exclude={"verification"}),
        verdict=told.verdict if told else None,
        basis=told.basis if told else None,
        verification=attempt.verification if attempt is not published else None,
    )


def _publication(job: JobEvidence) -> PublicationPart | None:
    if job.published_at is None or job.new_version is None:
        return None
    return PublicationPart(
        published_at=job.published_at,
        version=job.new_version,
        retired=job.retired,
        artefacts=list(job.artefacts),
        review=job.review,
    )
