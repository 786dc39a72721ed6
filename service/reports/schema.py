"""The shape of report.json, version "lethe/report/1": what a third party reads, stores and verifies again.

Published as JSON Schema at /v1/schemas/report. Times are aware UTC; digests are SHA-256 in hexadecimal; nothing in
it names a person: the subject appears as a keyed pseudonym. A request about one model repeats that model's parts at
the top level, where simple readers look for them; a request about several models has them under `targets` alone.
"""

from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from service.verification.schema import Evaluation, Verdict

SCHEMA_ID: Final = "lethe/report/1"

Outcome = Literal["published", "no_records", "already_deleted"]


class Part(BaseModel):
    """A frozen piece of the report; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RequestPart(Part):
    """What was asked, without identifiers."""

    id: str
    pseudonym: str = Field(
        description="HMAC-SHA256 of the subject's identifier under a key that stays with the service"
    )
    regulation: str
    outcome: Outcome = Field(description="published when any target was published")


class ClockPart(Part):
    """The clock of the regulation. `completed_at` is the moment from which the answer held."""

    received_at: AwareDatetime
    acknowledged_at: AwareDatetime | None
    due_at: AwareDatetime
    extended_at: AwareDatetime | None
    completed_at: AwareDatetime
    days_taken: float
    days_left: float = Field(description="negative when the deadline had passed")
    in_time: bool


class NearDuplicatesPart(Part):
    """Whether copies of what the run forgot were looked for among the kept records, and how many there are."""

    computed: bool = False
    retained: int | None = Field(None, description="exact and, for texts, near copies; null where nobody looked")


class ScopePart(Part):
    """Which records the decision covers."""

    decision: str
    records: int = Field(description="records of this request in the model's training data")
    job_records: int = Field(description="records of all requests that the same run served")
    job_subjects: int
    job_requests: int
    near_duplicates: NearDuplicatesPart = NearDuplicatesPart()


class VersionPart(Part):
    """One content-addressed version of a model."""

    number: int
    digest: str


class DatasetPart(Part):
    """The training data before and after: after, the forgotten records are tombstoned."""

    digest_before: str
    digest_after: str = Field(description="equal to digest_before where the file is kept and records are tombstoned")
    records_before: int
    records_after: int
    unit: str | None = Field(None, description="what is counted beside records: images or tokens")
    units_before: int | None = None
    units_after: int | None = None


class LineagePart(Part):
    """From which data and version the published version descends."""

    dataset: DatasetPart
    base_version: VersionPart | None
    new_version: VersionPart | None


class PolicyPart(Part):
    """The policy fixed before the run; `digest` is the SHA-256 of its canonical JSON."""

    digest: str
    document: dict[str, Any]
    rules_digest: str | None = Field(
        None, description="of the part that candidates are made and measured by; null in reports of earlier versions"
    )


class PlanPart(BaseModel):
    """Why these methods, in this order."""

    model_config = ConfigDict(extra="allow", frozen=True)

    rungs: list[dict[str, Any]]
    why: str
    alternatives: list[Any] = []
    estimates: list[dict[str, Any]] = []
    expected_seconds: float | None = None


class MadeWithPart(Part):
    """What a candidate was made with beside data, policy and code. The log of the attempt holds the digest of this."""

    recipe_digest: str | None = Field(description="of the model's recipe; null where it has none")
    holdout_digest: str | None = Field(description="of the held-out set; null where the reserve stood in, or nothing")
    packages: dict[str, str] = Field(description="name -> version of what decides the numbers, Python among them")


class AttemptPart(Part):
    """One rung of the ladder, from the base weights."""

    number: int
    method: str
    params: dict[str, Any]
    seed: int
    state: str = Field(description="passed, failed, inconclusive, error, or released: inconclusive and published")
    code_version: str | None
    made_with: MadeWithPart | None = Field(None, description="null in reports of earlier versions")
    device: str | None
    seconds: float | None
    fraction_of_retrain: float | None = Field(description="cost as a part of one training of the served model")
    peak_memory_bytes: int | None
    digest: str | None = Field(description="of the candidate version")
    verdict: Verdict | None
    basis: str | None
    error: str | None
    notes: list[str]
    curve: list[dict[str, float | None]]
    verification: Evaluation | None = Field(
        description="of attempts that were not published; the published one's is the target's"
    )


class RetiredPart(Part):
    """The version that stopped serving."""

    number: int
    digest: str
    retired_at: AwareDatetime
    destroy_by: AwareDatetime | None
    destroyed_at: AwareDatetime | None


class ArtefactPart(Part):
    """Something derived from the training data, with its end."""

    id: str
    kind: str
    digest: str | None
    destroy_by: AwareDatetime | None
    destroyed_at: AwareDatetime | None


class ReviewPart(Part):
    """What a reviewer decided on the publication; the log holds it as `attempt.released` or `publication.approved`."""

    kind: Literal["released", "approved"] = Field(
        description="released: published though the gate was inconclusive; approved: it had passed"
    )
    attempt: int
    at: AwareDatetime
    key_id: str = Field(description="id of the reviewer's API key")
    reason: str | None = Field(description="of a release, as the reviewer wrote it")
    reason_sha256: str | None = Field(description="SHA-256 of the reason in UTF-8, which the log holds")


class PublicationPart(Part):
    """When serving switched, and what becomes of everything that held the records."""

    published_at: AwareDatetime
    version: VersionPart
    retired: RetiredPart | None
    artefacts: list[ArtefactPart]
    review: ReviewPart | None = Field(None, description="null where the policy asks nobody and the gate decided")


class PlotPart(Part):
    """A figure of the HTML and PDF forms."""

    name: str
    title: str
    caption: str
    alt: str
    sha256: str


class StepPart(Part):
    """One publication by measurement in the wager over publications: its guesses, and where the wager stands after."""

    version: int
    attempts: int
    alpha_spent: float = Field(description="error rate that the measured attempts of its job had between them")
    guesses: int = Field(description="planted records that were deleted along and guessed at")
    right: float = Field(description="sum of the outcomes: 1 for a right guess, one half for a tie")
    log_wealth: float = Field(description="natural logarithm of the e-value")
    low: float = Field(description="bounds of the mean chance of a right guess, that hold after every publication at")
    high: float = Field(description="once with probability 1 - alpha")


class SequencePart(Part):
    """The wager over all publications by measurement since the line was last exact: an e-value that without a leak ever
    reaches 1 / alpha with probability alpha at most (service/verification/sequential.py)."""

    null: float = Field(description="the chance of a right guess that is bet against")
    alpha: float
    steps: list[StepPart] = Field(min_length=1)
    peak: float = Field(description="greatest natural logarithm of the e-value")
    alarm: bool = Field(description="whether the e-value ever reached 1 / alpha: then the next deletion is exact")


class TargetPart(Part):
    """Everything about one model that the request named."""

    model: str
    task: str
    outcome: Outcome
    job_id: str | None
    started_at: AwareDatetime | None
    scope: ScopePart
    lineage: LineagePart
    policy: PolicyPart | None
    plan: PlanPart | None
    attempts: list[AttemptPart]
    verification: Evaluation | None
    grade: str | None
    publication: PublicationPart | None
    sequence: SequencePart | None = Field(None, description="null where nothing planted was ever guessed at")
    limits: list[str]
    plots: list[PlotPart]


class LogProofPart(Part):
    """Audit events about the request and its jobs. `previous_chain_hash` lets each link be checked on its own."""

    leaf: str
    chain: str
    events: list[dict[str, Any]]


class SignaturePart(Part):
    """Who signs the bundle that carries this report; the signature itself is in its signature.json."""

    algorithm: Literal["ed25519"] = "ed25519"
    key_id: str = Field(description="SHA-256 of the raw public key")
    covers: list[str]


MIRRORED = ("scope", "lineage", "policy", "plan", "attempts", "verification", "grade", "publication", "limits")
"""Parts that a report on one model repeats at the top level."""


class Report(Part):
    """report.json."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, title="Lethe deletion report", validate_by_name=True, validate_by_alias=True
    )

    schema_id: Literal["lethe/report/1"] = Field(SCHEMA_ID, alias="schema")
    generated_at: AwareDatetime
    generator: str
    request: RequestPart
    clock: ClockPart
    targets: list[TargetPart] = Field(min_length=1)
    scope: ScopePart | None = None
    lineage: LineagePart | None = None
    policy: PolicyPart | None = None
    plan: PlanPart | None = None
    attempts: list[AttemptPart] = []
    verification: Evaluation | None = None
    grade: str | None = None
    publication: PublicationPart | None = None
    limits: list[str] = []
    plots: list[PlotPart] = Field([], description="figures about the request as a whole")
    log_proof: LogProofPart
    signatures: list[SignaturePart]

    @model_validator(mode="after")
    def _mirrors_agree(self) -> "Report":
        if len(self.targets) == 1:
            differing = [name for name in MIRRORED if getattr(self, name) != getattr(self.targets[0], name)]
            if differing:
                raise ValueError(f"top level and targets[0] differ in {', '.join(differing)}")
        return self


def report_bytes(report: Report) -> bytes:
    """The file: UTF-8 JSON, indented, fields in the order of the schema."""
    return report.model_dump_json(by_alias=True, indent=2).encode() + b"\n"


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of report.json."""
    schema = Report.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID} | schema
