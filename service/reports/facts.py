"""What a report is made from: plain data that the caller reads from its own tables.

No session, no row and no identifier of a person gets in here; `service.reports` reads nothing else. A job's evidence is
stored as JSON when the job attests, since score tables and job files are destroyed right after.
"""

from typing import Any

from pydantic import AwareDatetime, Field

from service.reports.schema import (
    ArtefactPart,
    DatasetPart,
    MadeWithPart,
    Outcome,
    Part,
    PlotPart,
    RetiredPart,
    ReviewPart,
    SequencePart,
    VersionPart,
)
from service.verification.release import PUBLISHED_STATES
from service.verification.schema import Evaluation


class RequestFacts(Part):
    """The request. `completed_at`: publication of the last target, or the moment of the answer where none was."""

    id: str
    pseudonym: str
    regulation: str
    received_at: AwareDatetime
    acknowledged_at: AwareDatetime | None = None
    due_at: AwareDatetime
    extended_at: AwareDatetime | None = None
    completed_at: AwareDatetime


class TargetFacts(Part):
    """One model that the request named: how it ended for this request, and the job that dealt with it."""

    model: str
    outcome: Outcome
    records: int = Field(description="records of this request that the job found")
    job_id: str


class AttemptFacts(Part):
    """One row of `attempts`: what ran, what it cost, what the gate said."""

    number: int
    method: str
    params: dict[str, Any]
    seed: int
    state: str
    code_version: str | None = None
    made_with: MadeWithPart | None = None
    device: str | None = None
    seconds: float | None = None
    fraction_of_retrain: float | None = None
    peak_memory_bytes: int | None = None
    digest: str | None = None
    notes: list[str] = Field(default_factory=list)
    curve: list[dict[str, float | None]] = Field(default_factory=list)
    verification: Evaluation | None = None
    error: str | None = None


class JobEvidence(Part):
    """One unlearning job. A job with nothing to forget has no plan, no attempts and no new version."""

    job_id: str
    model: str
    task: str
    requests: int
    records: int
    subjects: int
    started_at: AwareDatetime | None
    dataset: DatasetPart
    base_version: VersionPart | None
    new_version: VersionPart | None = None
    policy: dict[str, Any]
    policy_digest: str
    plan: dict[str, Any] | None = None
    attempts: list[AttemptFacts] = Field(default_factory=list)
    review: ReviewPart | None = None
    published_at: AwareDatetime | None = None
    retired: RetiredPart | None = None
    artefacts: list[ArtefactPart] = Field(default_factory=list)
    sequence: SequencePart | None = None
    plots: list[PlotPart] = Field(default_factory=list, description="filled in by write_job_evidence")

    @property
    def published(self) -> AttemptFacts | None:
        """The attempt behind the new version."""
        chosen = [attempt for attempt in self.attempts if attempt.state in PUBLISHED_STATES]
        return chosen[-1] if chosen and self.new_version else None
