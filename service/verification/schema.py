"""The evaluation: what `lethe evaluate --json` prints and report.json carries. Plain numbers that anyone can judge again."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_ID = "lethe/evaluation/1"

Verdict = Literal["pass", "fail", "inconclusive"]
Outcome = Literal["pass", "fail", "inconclusive", "info"]
Role = Literal["gate", "diagnostic"]
Basis = Literal["procedure", "measurement"]
Interval = tuple[float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(_Part):
    """One check. `ci` has the level 1 - 2 alpha and decides a pass (two one-sided tests); `ci95` decides a fail.

    `n` and `m` count forgotten and comparison records, `clusters` the people behind them. `power_at_zero` is the chance
    that a model without any leak passes, `smallest_detectable` the effect found with 80 % power; both come from the
    design and from the untouched model, before the candidate is looked at.
    """

    id: str
    role: Role
    statistic: str
    estimate: float | None = None
    alpha: float | None = None
    ci: Interval | None = None
    ci95: Interval | None = None
    margin: float | None = None
    n: int | None = None
    m: int | None = None
    cluster: str | None = None
    clusters: tuple[int, int] | None = None
    power_at_zero: float | None = None
    smallest_detectable: float | None = None
    verdict: Outcome = "info"
    reason: str | None = None


class SetNumbers(_Part):
    """One model on one set of records: mean loss in nats (per token for language models), accuracy or perplexity."""

    loss: float
    accuracy: float | None = None
    perplexity: float | None = None


class ModelNumbers(_Part):
    """One model on all sets; null where a set is empty."""

    forget: SetNumbers | None
    retain: SetNumbers | None
    held_out: SetNumbers | None


class Models(_Part):
    """The models that were scored."""

    original: ModelNumbers
    candidate: ModelNumbers
    retrained: list[ModelNumbers] = []


class Records(_Part):
    """Numbers of records. `held_out` counts the certification part; `retain_scored` how many of `retain` were scored."""

    forget: int
    retain: int
    held_out: int
    retain_scored: int


class Evaluation(_Part):
    """All checks and metrics of one candidate with the verdict that follows from them."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)

    schema_id: Literal["lethe/evaluation/1"] = Field(default=SCHEMA_ID, alias="schema")
    task: str
    records: Records
    models: Models
    checks: list[Check]
    metrics: dict[str, Any]
    verdict: Verdict
    basis: Basis
    grade: Literal["A", "B", "C"] | None
    policy_digest: str
    forward_passes: dict[str, int] = Field(default={}, description="batches, by model: each record is scored once")
    seconds: float | None = None

    def check(self, name: str) -> Check | None:
        """The check of this id."""
        return next((check for check in self.checks if check.id == name), None)

    def as_json(self) -> dict[str, Any]:
        """The JSON document, with the key `schema`."""
        return self.model_dump(mode="json", by_alias=True)
