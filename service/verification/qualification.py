"""How a method did on simulated deletions: the document of `lethe qualify`, its verdict, and which jobs it covers.

A qualification is a dated record of measurements, not a promise about a deletion to come. Every size class of forget
sets has figures, and its verdict follows from them (`judged`), so that a third party can derive it again. Schema
"lethe/qualification/2"; the first did not say which rules and packages it was measured by. Thresholds: a TPR at 1 % FPR
of 5 %, an AUC of 0.5 +- 0.05 and a worst tenth of 0.65, each against a retrain without the records. They are this
project's proposal, not the literature's.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import BadParameters
from service.verification.policy import VerificationPolicy, policy_digest
from service.verification.schema import Interval, Outcome, Qualified, QualifiedVerdict, Use, Verdict

VALID = timedelta(days=90)
AUC, TPR, WORST, UTILITY = "auc", "tpr", "worst_decile", "utility"
GATES = (AUC, TPR, WORST, UTILITY)
"""Figures that a size class has to pass over all designs together, and that no design may fail alone."""

AUC_MARGIN = 0.05
TPR_LIMIT = 0.05
WORST_LIMIT = 0.65
REACH = 10
"""A class stands for sets from its own size up to this many times as large."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Figure(_Part):
    """One measured number. `ci` decides a pass (one-sided bounds of 95 % each), `ci95` a failure.

    `low` and `high` bound what passes; null: no bound, and without either nothing is decided. `n` and `m` count
    forgotten and comparison records, `clusters` the people among the forgotten. `retrained` is the same of the retrains
    in the candidate's place: beyond a bound that they do not keep either, nothing has failed.
    """

    name: str
    statistic: str
    estimate: float | None = None
    ci: Interval | None = None
    ci95: Interval | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    m: int = 0
    clusters: int = 0
    runs: int = 0
    retrained: float | None = None
    retrained_ci95: Interval | None = None
    outcome: Outcome = "info"
    reason: str | None = None


class Counts(_Part):
    """How single evaluations by measurement ended."""

    passed: int = 0
    failed: int = 0
    inconclusive: int = 0


class SizeClass(_Part):
    """All runs with forget sets of one size. `pooled` figures are over all designs, `designs` has those of each.

    `broken` counts runs that the method did not finish.
    """

    size: int
    runs: int
    broken: int = 0
    candidate: Counts = Counts()
    retrained: Counts = Counts()
    pooled: list[Figure]
    designs: dict[str, list[Figure]]
    verdict: QualifiedVerdict = "inconclusive"
    reason: str = ""


class Qualification(_Part):
    """The document. `digest` is the SHA-256 over the canonical JSON of everything else.

    `records` is the size of the data, `companions` the canaries that were deleted along with people, `repetitions` the
    deletions of each size and design, `notes` what was left out and why. `holdout_digest` is null where the reserve
    stood in, which grows smaller with deletions. `rules_digest` is of what the policy measures by, see `rules_digest`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True, validate_by_name=True,
        validate_by_alias=True,
    )  # fmt: skip

    schema_id: Literal["lethe/qualification/2"] = Field("lethe/qualification/2", alias="schema")
    task: str
    method: str
    params: dict[str, Any]
    recipe_digest: str
    data_digest: str
    holdout_digest: str | None
    model_digest: str
    records: int
    companions: int
    code_version: str
    packages: dict[str, str]
    policy_digest: str
    rules_digest: str
    issued: date
    valid_until: date
    seed: int
    repetitions: int
    classes: list[SizeClass]
    notes: list[str] = []
    verdict: QualifiedVerdict = "inconclusive"
    digest: str = ""

    def as_json(self) -> dict[str, Any]:
        """The JSON document that is printed and stored."""
        return self.model_dump(mode="json")


def judged_figure(figure: Figure) -> Figure:
    """The figure with its outcome: pass inside its bounds, fail outside of them, else inconclusive."""
    if figure.low is None and figure.high is None:
        return figure.model_copy(update={"outcome": "info"})
    if figure.ci is None or figure.ci95 is None:
        return figure.model_copy(update={"outcome": "inconclusive", "reason": figure.reason or "not measured"})
    outcome: Verdict = "inconclusive"
    if _beyond(figure):
        outcome = "fail"
    elif (figure.low is None or figure.low < figure.ci[0]) and (figure.high is None or figure.ci[1] < figure.high):
        outcome = "pass"
    return figure.model_copy(update={"outcome": outcome})


def _beyond(figure: Figure) -> bool:
    if figure.ci95 is None:
        return False
    low, high = figure.ci95
    below, above = figure.low is not None and high < figure.low, figure.high is not None and low > figure.high
    if figure.retrained_ci95 is not None:
        below, above = below and high < figure.retrained_ci95[0], above and low > figure.retrained_ci95[1]
    return below or above


def judged_class(found: SizeClass) -> SizeClass:
    """The class with outcomes of its figures and the verdict that follows from them."""
    pooled = [judged_figure(figure) for figure in found.pooled]
    designs = {name: [judged_figure(figure) for figure in figures] for name, figures in found.designs.items()}
    verdict, reason = _verdict(found.broken, found.runs, pooled, designs)
    return found.model_copy(update={"pooled": pooled, "designs": designs, "verdict": verdict, "reason": reason})


def _verdict(
    broken: int, runs: int, pooled: Sequence[Figure], designs: Mapping[str, Sequence[Figure]]
) -> tuple[QualifiedVerdict, str]:
    if broken:
        return "not qualified", f"the method broke off {broken} of {runs} runs"
    for name, figures in {"all designs": pooled, **designs}.items():
        failed = [figure.name for figure in figures if figure.name in GATES and figure.outcome == "fail"]
        if failed:
            return "not qualified", f"{failed[0]} fails on {name}"
    outcomes = {figure.name: figure for figure in pooled}
    for name in GATES:
        if name not in outcomes or outcomes[name].outcome != "pass":
            why = outcomes[name].reason if name in outcomes else "not measured"
            return "inconclusive", f"{name}: {why or 'the interval reaches over the bound: too few runs to tell'}"
    return "qualified", "every figure lies within its bounds"


def judged(document: Qualification) -> Qualification:
    """The document with outcomes, verdicts and digest as they follow from its numbers."""
    classes = [judged_class(found) for found in document.classes]
    verdicts = {found.verdict for found in classes}
    verdict: QualifiedVerdict = "inconclusive"
    if "not qualified" in verdicts:
        verdict = "not qualified"
    elif verdicts == {"qualified"}:
        verdict = "qualified"
    made = document.model_copy(update={"classes": classes, "verdict": verdict})
    return made.model_copy(update={"digest": qualification_digest(made.as_json())})


def qualification_digest(document: Mapping[str, Any]) -> str:
    """SHA-256, in hex, over the canonical JSON of the document without its digest."""
    content = {key: value for key, value in document.items() if key != "digest"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def load_qualification(path: Path) -> Qualification:
    """Read a document. Raises BadParameters where it is none, was changed, or states what its numbers do not say."""
    try:
        found = Qualification.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadParameters(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise BadParameters(f"{path}: not a qualification of this version; run `lethe qualify` again") from error
    fault = next(_faults(found), None)
    if fault is not None:
        raise BadParameters(f"{path}: {fault}")
    return found


def _faults(document: Qualification) -> Iterator[str]:
    """What shows that a document is not as it was written, as clauses."""
    if document.digest != qualification_digest(document.as_json()):
        yield "not the document that was written: its digest is another one"
    if judged(document) != document.model_copy(update={"digest": judged(document).digest}):
        yield "its verdict does not follow from its figures"
    if document.valid_until - document.issued > VALID:
        yield f"it is said to be valid for more than {VALID.days} days"


def load_folder(folder: Path) -> list[Qualification]:
    """Every document of a folder that can be read, newest first; none where there is no folder.

    A file that is damaged or from another version covers nothing, as if it were not there.
    """
    found = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            found.append(load_qualification(path))
        except BadParameters:
            continue
    return sorted(found, key=lambda one: (one.issued, one.digest), reverse=True)


def rules_digest(policy: Mapping[str, Any]) -> str:
    """SHA-256 of the part of a policy, as JSON, that candidates are made and measured by.

    Whether it asks for a qualification, when jobs start and how long things are kept change nothing that was measured.
    A policy that was stored before a field was known has that field's default.
    """
    known = VerificationPolicy.model_validate(policy["verification"]).model_dump(mode="json")
    rules = {name: value for name, value in known.items() if name != "qualification"}
    return policy_digest({"attempts": policy["ladder"]["approximate_attempts"], "verification": rules})


def made_with_digest(made: Mapping[str, Any]) -> str:
    """SHA-256 of what a candidate was made with (recipe, held-out set, packages), as the log of the attempt has it."""
    return policy_digest(dict(made))


def class_of(document: Qualification, records: int) -> SizeClass | None:
    """The class that so many records belong to: the largest size they reach, within a factor of ten."""
    sizes = [found for found in document.classes if found.size <= records < REACH * found.size]
    return max(sizes, key=lambda found: found.size, default=None)


def why_not(document: Qualification, method: str, params: Mapping[str, Any], use: Use) -> str | None:
    """Why a document does not cover this use of a method, as a clause; None where it does. `params` with defaults."""
    for what, stated, wanted in (
        ("another method", document.method, method),
        ("another task", document.task, use.task),
        ("other parameters", document.params, dict(params)),
        ("another recipe", document.recipe_digest, use.recipe_digest),
        ("other data", document.data_digest, use.data_digest),
        ("another held-out set", document.holdout_digest, use.holdout_digest),
        ("another number of companion canaries", document.companions, use.companions),
        ("other rules of verification in the policy", document.rules_digest, use.rules_digest),
        ("another version of the code", document.code_version, use.code_version),
        (_other_packages(document.packages, use.packages), document.packages, use.packages),
    ):
        if stated != wanted:
            return f"the qualification is of {what}"
    if not document.issued <= use.on <= document.valid_until:
        return f"the qualification was valid from {document.issued} to {document.valid_until}"
    found = class_of(document, use.records)
    if found is None:
        return f"no size was qualified that stands for {use.records} records"
    return None if found.verdict == "qualified" else f"size {found.size} is {found.verdict}: {found.reason}"


def _other_packages(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which versions differ, as a clause."""
    names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    told = (f"{name} {then.get(name, 'absent')} (here {now.get(name, 'absent')})" for name in names)
    return f"other packages: {', '.join(told)}"


def find_qualification(
    documents: Iterable[Qualification], method: str, params: Mapping[str, Any], use: Use
) -> Qualified | str:
    """What an evaluation states of the first document that covers the use, or why none does.

    The reason is that of the first document of this method, since it is the most likely to have been meant.
    """
    reason = "there is no qualification of it"
    for document in sorted(documents, key=lambda one: one.method != method):
        why = why_not(document, method, params, use)
        found = class_of(document, use.records)
        if why is None and found is not None:
            return _stated(document, found, use)
        if document.method == method and why is not None and reason.startswith("there is no"):
            reason = why
    return reason


def _stated(document: Qualification, found: SizeClass, use: Use) -> Qualified:
    return Qualified(
        digest=document.digest,
        verdict=found.verdict,
        size=found.size,
        valid_until=document.valid_until,
        looked_at=use.on,
        use=use,
        document=document.as_json(),
    )


def unsupported(stated: Qualified, method: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Why a stated qualification of a method does not follow from the document that it carries; nothing where it does.

    The figures in the document are those of whoever measured them: only what is made of them is derived again.
    """
    if stated.document is None or stated.use is None:
        yield "a qualification is stated without its document"
        return
    try:
        document = Qualification.model_validate(stated.document)
    except ValidationError:
        yield "the document of the qualification is not one that this version knows"
        return
    yield from (f"the qualification: {fault}" for fault in _faults(document))
    why = why_not(document, method, params, stated.use)
    found = class_of(document, stated.use.records)
    if why is not None:
        yield f"{why}, and is stated to cover {method}"
    elif found is not None and stated != _stated(document, found, stated.use):
        yield "what is stated of the qualification is not what its document says"
