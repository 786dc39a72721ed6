"""The evaluation: what `lethe evaluate --json` prints and report.json carries, as numbers that anyone can judge again.

The schema names the rules as well as the shape (`evaluation_schema()` exports it as JSON Schema): whoever changes what
follows from the same numbers gives it the next number. "lethe/evaluation/1" was judged by several sets of rules under
one name; it can be read, and not judged again. Every float is finite or null.
"""

from datetime import date
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.catalogue.precisions import FULL, Precision

Verdict = Literal["pass", "fail", "inconclusive"]
Outcome = Literal["pass", "fail", "inconclusive", "info"]
Role = Literal["gate", "diagnostic"]
Basis = Literal["procedure", "measurement"]
Grade = Literal["A", "B", "C"]
EVALUATION: Final = "lethe/evaluation/2"
"""The rules of service.verification.verdict as they are."""

QualifiedVerdict = Literal["qualified", "not qualified", "inconclusive"]
Interval = tuple[float, float]


class _Part(BaseModel):
    # inf and nan are no JSON; whoever computes decides what to say instead.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Check(_Part):
    """One check. `ci` has the level 1 - 2 alpha and decides a pass (two one-sided tests); `ci95` decides a fail.

    `n` and `m` count forgotten and comparison records, `clusters` the people behind them in the same order; `utility`
    has held-out records alone, counted by `n`. `references` counts the models that never saw a record, for each record.
    `p_value` is two-sided, of an AUC of 0.5.
    `power_at_zero` is the chance that a model without any leak (or loss) passes, `smallest_detectable` the effect
    found with 80 % power; both come from sizes and the untouched model, before the candidate is looked at. A power of 0
    also says that the sets cannot be compared by this attack, whatever the candidate.
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
    clusters: tuple[int, ...] | None = None
    power_at_zero: float | None = None
    smallest_detectable: float | None = None
    references: int | None = None
    p_value: float | None = None
    verdict: Outcome = "info"
    reason: str | None = None


class SetNumbers(_Part):
    """One model on one set of records. `loss` is the mean in nats: per record for classifiers, per token for
    language models, whose `accuracy` is that of the next token and whose `nats_per_byte` compares tokenizers."""

    loss: float
    accuracy: float | None = None
    perplexity: float | None = None
    nats_per_byte: float | None = None


class ModelNumbers(_Part):
    """One model on all sets; null where there is no such set."""

    forget: SetNumbers | None
    retain: SetNumbers | None
    held_out: SetNumbers | None


class Models(_Part):
    """The models that were scored."""

    original: ModelNumbers
    candidate: ModelNumbers
    retrained: list[ModelNumbers] = []


class Records(_Part):
    """Numbers of records. `held_out` counts the certification part, the only one the gate looks at;
    `retain_scored` is smaller than `retain` where a sample stands for it. `near_duplicates` counts retained records
    that are exact or near copies of forgotten ones; null where nobody looked."""

    forget: int
    retain: int
    held_out: int
    retain_scored: int
    near_duplicates: int | None = None


class Traces(_Part):
    """What the training of the original left behind that evidence can rest on.

    `record`: it has a training record. `log`: the order of its training is there, was recorded and is not there any
    more, or was never recorded. `canaries`: planted records that no deletion has used up; `canaries_lost`: nobody can
    say any more which these are. `reserved`: records that a coin kept out of the training. `held_out`: where the
    held-out records come from. `carried_on`: the candidate brings a log of its own; null where there is none to bring.
    """

    record: bool
    log: Literal["kept", "lost", "none"] = "none"
    canaries: int = 0
    canaries_lost: bool = False
    reserved: int = 0
    held_out: Literal["reserve", "given", "none"] = "none"
    carried_on: bool | None = None


class Use(_Part):
    """What a deletion is about to be made with, as qualifications are matched with it.

    Its line (task, recipe, data, the held-out set where one was given), the policy's rules of verification, the code
    and the packages it runs on, the day, and its size: `companions` is how many canaries the policy asks to be deleted
    along, `records` counts those of people.
    """

    task: str
    recipe_digest: str | None
    data_digest: str
    holdout_digest: str | None
    rules_digest: str
    companions: int
    code_version: str
    packages: dict[str, str]
    records: int
    on: date


class Qualified(_Part):
    """The qualification that covered the method, by its digest: what the class of `size` records came to, how long it
    is valid, and the day it was looked at.

    `document` is all of it and `use` what it was compared with, so that anyone can find again that it covers the
    method; null in evaluations of "lethe/evaluation/1".
    """

    digest: str
    verdict: QualifiedVerdict
    size: int
    valid_until: date
    looked_at: date
    use: Use | None = None
    document: dict[str, Any] | None = None


class Evaluation(_Part):
    """All checks and metrics of one candidate with the verdict that follows from them.

    `metrics` maps a name to the candidate's value, `NAME_do_nothing` to the original's and `NAME_retrained` to the
    list of those of the retrained models; null means not measurable. `unit` is what language models' losses are
    compared per: tokens, or UTF-8 bytes where tokenizers differ. `forward_passes` counts batches by model.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True, validate_by_name=True,
        validate_by_alias=True,
    )  # fmt: skip

    schema_id: Literal["lethe/evaluation/1", "lethe/evaluation/2"] = Field(default=EVALUATION, alias="schema")
    task: str
    records: Records
    models: Models
    checks: list[Check]
    metrics: dict[str, Any]
    verdict: Verdict
    basis: Basis
    grade: Grade | None
    reason: str = Field("", description="one sentence: why this verdict")
    limits: list[str] = Field([], description="what this evidence does not show")
    policy_digest: str
    seed: int = Field(0, description="of the retain sample, the folds of the blind baseline and the SVM of tow_mia")
    unit: Literal["record", "token", "byte"] = "record"
    forward_passes: dict[str, int] = Field(default={}, description="batches by model: each record is scored once")
    serve_precision: Precision = Field(FULL, description="what weights were rounded to for the checks, as when served")
    traces: Traces | None = Field(None, description="what the original's training left; null where nobody looked")
    qualification: Qualified | None = Field(None, description="what qualified the method for so many records, if any")

    def check(self, name: str) -> Check | None:
        """The check of this id."""
        return next((check for check in self.checks if check.id == name), None)

    def as_json(self) -> dict[str, Any]:
        """The JSON document that is printed and stored."""
        return self.model_dump(mode="json")


def evaluation_schema() -> dict[str, Any]:
    """JSON Schema of an evaluation as it is printed."""
    return Evaluation.model_json_schema(mode="serialization")
