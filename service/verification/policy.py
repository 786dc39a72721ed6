"""The policy: everything the gate and the dispatcher decide by, fixed before a run and hashed into its report."""

import hashlib
import json
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from service.catalogue.methods import METHODS
from service.errors import BadPolicy

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_RETENTION = re.compile(r"\d+\s*(?:days|months|years)")


def parse_duration(text: str) -> timedelta:
    """ "5s", "10m", "24h", "7d" or "2w" as a time span. Raises ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a duration; write a number and s, m, h, d or w")
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError as error:
        raise ValueError(f"{text!r} is too long a duration") from error


def _check_duration(text: str) -> str:
    parse_duration(text)
    return text


def _check_retention(text: str) -> str:
    if _RETENTION.fullmatch(text.strip()) is None:
        raise ValueError(f"{text!r} is not a period; write a number and days, months or years")
    return text


def _check_sizes(table: dict[str, float]) -> dict[str, float]:
    if not table or not all(key.isascii() and key.isdigit() for key in table):
        raise ValueError("keys must be numbers of records")
    return {str(int(key)): value for key, value in table.items()}


Duration = Annotated[str, AfterValidator(_check_duration)]
Margin = Annotated[float, Field(gt=0, lt=0.5)]
Ratio = Annotated[float, Field(gt=1, le=2)]
Rate = Annotated[float, Field(gt=0.05, lt=1)]
Sizes = AfterValidator(_check_sizes)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LadderPolicy(_Section):
    """Which methods are tried. `auto` lets the planner choose.

    After `approximate_edits` approximate versions, or once approximate methods have removed `approximate_share` of the
    data, the next job is exact.
    """

    methods: list[str] = Field(["auto"], min_length=1)
    approximate_attempts: int = Field(2, ge=0, le=5)
    approximate_edits: int = Field(10, ge=0, le=1000)
    approximate_share: float = Field(0.01, ge=0, le=1)


class BatchPolicy(_Section):
    """When waiting requests become a job."""

    window: Duration = "5s"
    max_requests: int = Field(1000, ge=1)
    min_subjects: int = Field(1, ge=1)
    safety: Duration = "72h"

    @property
    def window_timedelta(self) -> timedelta:
        """How long the first request waits for company."""
        return parse_duration(self.window)

    @property
    def safety_timedelta(self) -> timedelta:
        """How long before the deadline, beside the estimated run time, a job starts whatever the window says."""
        return parse_duration(self.safety)


class VerificationPolicy(_Section):
    """Error rate and margins. A table maps "records at least" to a margin; below its smallest nothing is measured.

    `companions` canaries are deleted along with each approximate edit, where the model holds so many; `canary_margin`
    bounds their AUC and `canary_rate` the share of them found at a false-positive rate of 5 %. `qualification`
    "required": an approximate method is tried only where a valid document of `lethe qualify` covers it.

    Of language models: `extraction_margin` is by how much more of so many forgotten texts may come out, in share or
    strength, than of never-seen people's; below `extraction_p` a surplus is no chance and fails. The mean exposure of
    deleted canaries has to lie between `exposure_lowest` and `exposure_highest` bits (1.44 without a trace), that of
    people's numbers, `fewest_values` of them at least, below the upper one; neither decides unless the untouched model
    has more than `exposure_control` bits. A clean model keeps below 2.4 bits in 85 % of cases with 20 canaries and in
    99.8 % with 72.
    """

    alpha: float = Field(0.05, gt=0, le=0.2)
    auc_margin: Annotated[dict[str, Margin], Sizes] = {"300": 0.05, "75": 0.10, "33": 0.15}
    utility_margin: Annotated[dict[str, Margin], Sizes] = {"3000": 0.015, "1000": 0.025, "300": 0.04}
    perplexity_margin: Annotated[dict[str, Ratio], Sizes] = {"3000": 1.03, "1000": 1.05, "300": 1.10}
    min_subjects: int = Field(10, ge=2)
    companions: int = Field(73, ge=0, le=1000)
    canary_margin: Annotated[dict[str, Margin], Sizes] = {"305": 0.05, "73": 0.10}
    canary_rate: Annotated[dict[str, Rate], Sizes] = {"305": 0.12, "73": 0.15}
    qualification: Literal["off", "required"] = "off"
    extraction_margin: Annotated[dict[str, Margin], Sizes] = {"300": 0.05, "75": 0.10, "33": 0.15}
    extraction_p: float = Field(0.01, ge=0.001, le=0.05)
    exposure_lowest: float = Field(0.9, ge=0, le=1.4)
    exposure_highest: float = Field(2.4, ge=1.5, le=3.5)
    exposure_control: float = Field(4.0, gt=2, le=5)
    fewest_values: int = Field(20, ge=10, le=24)

    @model_validator(mode="after")
    def _control_is_beyond(self) -> "VerificationPolicy":
        if self.exposure_control <= self.exposure_highest:
            raise ValueError("exposure_control must be above exposure_highest: else the attack shows nothing by it")
        return self


class ApprovalPolicy(_Section):
    """Where a person decides.

    `required`: a reviewer approves each request before its job. `publication`: a version that passed the gate waits for
    a reviewer. `override`: a reviewer may release a candidate that the gate left inconclusive, never one that failed.
    """

    required: bool = False
    publication: bool = False
    override: bool = False


class RetentionPolicy(_Section):
    """How long a retired version and the records of a request are kept."""

    destroy_retired_after: Duration = "7d"
    records: Annotated[str, AfterValidator(_check_retention)] = "24 months"

    @property
    def destroy_retired_after_timedelta(self) -> timedelta:
        """From retirement to destruction."""
        return parse_duration(self.destroy_retired_after)


class ReferencesPolicy(_Section):
    """What a pool of reference models is expected to serve, and how long a member may live that holds deleted people.

    `jobs` deletion jobs are expected within `horizon` (0: as many as the model's history tells). After a publication,
    what was trained on the deleted people is destroyed within `refresh_after`; training it again waits `refresh_wait`
    for further publications to share the cost, and the pool is not used meanwhile.
    """

    horizon: Duration = "365d"
    jobs: float = Field(0, ge=0, allow_inf_nan=False)
    refresh_after: Duration = "7d"
    refresh_wait: Duration = "0s"

    @model_validator(mode="after")
    def _fits(self) -> "ReferencesPolicy":
        if parse_duration(self.horizon) <= timedelta(0):
            raise ValueError("horizon must be longer than nothing")
        if self.refresh_wait_timedelta > parse_duration(self.refresh_after):
            raise ValueError("refresh_wait must not be longer than refresh_after")
        return self

    @property
    def horizon_timedelta(self) -> timedelta:
        """The time over which a pool is compared with plain retraining."""
        return parse_duration(self.horizon)

    @property
    def refresh_wait_timedelta(self) -> timedelta:
        """From a publication to the first training that it causes."""
        return parse_duration(self.refresh_wait)


class Policy(_Section):
    """A whole policy; the defaults are those of the README."""

    ladder: LadderPolicy = LadderPolicy()
    batch: BatchPolicy = BatchPolicy()
    verification: VerificationPolicy = VerificationPolicy()
    approval: ApprovalPolicy = ApprovalPolicy()
    retention: RetentionPolicy = RetentionPolicy()
    references: ReferencesPolicy = ReferencesPolicy()

    _stored: dict[str, Any] | None = PrivateAttr(None)

    @classmethod
    def stored(cls, document: dict[str, Any]) -> "Policy":
        """A policy as it was stored with a model or a job. What a later version of Lethe knows beside it has defaults,
        and the digest stays that of the document. Raises ValidationError."""
        policy = cls.model_validate(document)
        policy._stored = document
        return policy

    @property
    def document(self) -> dict[str, Any]:
        """The JSON that the digest is of: as it was stored, else every value, defaults included."""
        return self.model_dump(mode="json") if self._stored is None else self._stored

    @property
    def refresh_after_timedelta(self) -> timedelta:
        """From a publication to the end of reference models that hold deleted people: never later than a version's."""
        return min(parse_duration(self.references.refresh_after), self.retention.destroy_retired_after_timedelta)

    @property
    def attempt_alpha(self) -> float:
        """The error rate of one attempt: all approximate attempts of a job share `alpha` (Bonferroni)."""
        return self.verification.alpha / max(1, self.ladder.approximate_attempts)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of every value, defaults included; of a stored policy, of what was stored."""
        return policy_digest(self.document)


def policy_digest(document: dict[str, Any]) -> str:
    """The digest of a policy as stored in rows and reports."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def margin_for(table: dict[str, float], size: int) -> float | None:
    """The margin of the largest threshold that `size` reaches; None below the smallest."""
    reached = [int(key) for key in table if size >= int(key)]
    return table[str(max(reached))] if reached else None


def load_policy(path: Path | None) -> Policy:
    """Read a policy file, or the defaults for None. Raises BadPolicy naming the key."""
    if path is None:
        return Policy()
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadPolicy(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadPolicy(f"{path}: not valid TOML: {error}") from error
    try:
        policy = Policy.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise BadPolicy(f"{path}: {place}: {fault['msg'].removeprefix('Value error, ')}") from error
    # Not in the model itself: a policy that is stored with a job stays readable when a method has left the catalogue.
    known = {"auto", *(spec.name for spec in METHODS)}
    for name in policy.ladder.methods:
        if name not in known:
            raise BadPolicy(f"{path}: ladder.methods: {name!r} is unknown; known are {', '.join(sorted(known))}")
    return policy
