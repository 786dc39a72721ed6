"""The pure core of an evaluation: score tables and a policy in, checks, metrics, verdict and grade out. No models."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from service.catalogue.precisions import FULL, Precision
from service.verification.limits import copies_limit, precision_limits, reference_limit, trace_limits
from service.verification.policy import Policy
from service.verification.schema import Basis, Check, Evaluation, Models, Records, Traces
from service.verification.statistics import NotMeasurable
from service.verification.verdict import (
    BLIND,
    CANARIES,
    CONTROL,
    MEMBERSHIP,
    PROVENANCE,
    REFERENCE,
    decide,
    explain,
    judge,
)
from workers.metrics.difficulty_baseline import Difficulty
from workers.planning.calibrated import NO_REFERENCES, Calibration, reference_checks
from workers.planning.canary_checks import canary_checks
from workers.planning.checks import (
    BlindFeatures,
    blind_check,
    copies_check,
    difficulty_check,
    distinct_check,
    membership_checks,
    sanity_check,
    utility_check,
)
from workers.planning.comparisons import Line, metric_checks, numbers_of, retrain_metrics
from workers.planning.exposure_checks import exposure_checks
from workers.planning.extraction_checks import extraction_checks
from workers.planning.kept_canaries import guess_metrics, harm_checks
from workers.planning.opposed import allowed, barred
from workers.planning.provenance import Provenance
from workers.planning.record_checks import record_checks
from workers.planning.score_tables import (
    CANDIDATE,
    FORGET,
    HELD_OUT,
    ORIGINAL,
    RETAIN,
    RETRAINED,
    ModelScores,
    read_tables,
)
from workers.planning.text_checks import text_checks
from workers.planning.value_checks import value_checks


@dataclass(frozen=True)
class Facts:
    """What score tables do not tell.

    `files_differ`: the candidate's weights are not the original's. `retain_records`: how many there are, where a sample
    was scored. `per_byte`: some tokenizers differ. `forward_passes` by model, in batches. `near_duplicates`: retained
    copies of forgotten records, None where nobody looked. `canary_kinds` of each canary's record id,
    `canary_opposites` the one outside that a planted one is put against.
    `difficulty`: how the original's training met the records, None where it left no learning events.
    `forgotten_classes`: labels that no retained record has, None where only those that were scored are known.
    `opposed`: checks and metrics that the candidate's method was trained against.
    `precision`: what the weights were rounded to before they were scored.
    """

    files_differ: bool = True
    weights_finite: bool = True
    provenance: Provenance | None = None
    retain_records: int | None = None
    per_byte: bool = False
    seed: int = 0
    forward_passes: dict[str, int] = field(default_factory=dict)
    traces: Traces | None = None
    near_duplicates: int | None = None
    canary_kinds: Mapping[str, str] = field(default_factory=dict)
    canary_opposites: Mapping[str, str] = field(default_factory=dict)
    difficulty: Difficulty | None = None
    forgotten_classes: frozenset[Any] | None = None
    opposed: frozenset[str] = frozenset()
    precision: Precision = FULL


def assess(
    tables: Mapping[str, pa.Table],
    task: str,
    policy: Policy,
    *,
    alpha: float | None = None,
    blind: BlindFeatures | None = None,
    facts: Facts | None = None,
    ignore_record: bool = False,
    references: Calibration | NotMeasurable = NO_REFERENCES,
) -> Evaluation:
    """Judge a candidate by the score tables "original", "candidate" and "retrained-1", ...

    Tables have the columns of `workers.scoring.score` and `set` (forget, retain, held_out: the certification records;
    none where there is no held-out set). `alpha` None takes the policy's. `references`: the gate's side of a pool, or
    why there is none. Raises Unevaluable, see `read_tables`.
    """
    facts = facts or Facts()
    line = line_of(read_tables(tables, task, facts.per_byte))
    basis: Basis = "procedure" if _by_procedure(facts.provenance, ignore_record) else "measurement"
    level = alpha if alpha is not None else policy.verification.alpha
    diagnostics, metrics = _diagnostics(line, policy, level, facts, references)
    raw = [
        provenance_check(facts.provenance, ignore_record),
        distinct_check(line.original, line.candidate, facts.files_differ),
        sanity_check(line.original, line.candidate, facts.weights_finite),
        *_gate_checks(line, policy, level, blind, facts),
        *diagnostics,
    ]
    checks = judge(barred(raw, facts.opposed), basis, policy.verification)
    verdict, grade = decide(checks, basis)
    records = _records(line, facts)
    return Evaluation(
        task=task,
        records=records,
        models=_numbers(line),
        checks=checks,
        metrics={name: _finite(value) for name, value in allowed(metrics, facts.opposed).items()},
        verdict=verdict,
        basis=basis,
        grade=grade,
        reason=explain(checks, basis),
        limits=[*limits_of(checks, basis, records, facts.traces, task), *precision_limits(facts.precision)],
        policy_digest=policy.digest(),
        seed=facts.seed,
        unit=_unit(task, facts.per_byte),
        forward_passes=facts.forward_passes,
        serve_precision=facts.precision,
        traces=facts.traces,
    )


def line_of(models: Mapping[str, ModelScores]) -> Line:
    """The models by their parts in an evaluation, retrained ones in the order of their numbers."""
    retrained = [models[name] for name in sorted(models, key=_number) if name.startswith(RETRAINED)]
    return Line(models[ORIGINAL], models[CANDIDATE], retrained)


def _numbers(line: Line) -> Models:
    return Models(
        original=numbers_of(line.original),
        candidate=numbers_of(line.candidate),
        retrained=[numbers_of(model) for model in line.retrained],
    )


def _number(name: str) -> tuple[int, str]:
    tail = name.removeprefix(RETRAINED)
    return (int(tail) if tail.isdigit() else 0, name)


def _by_procedure(provenance: Provenance | None, ignore_record: bool) -> bool:
    return provenance is not None and provenance.holds and not ignore_record


def _gate_checks(line: Line, policy: Policy, alpha: float, blind: BlindFeatures | None, facts: Facts) -> list[Check]:
    rules = policy.verification
    return [
        *membership_checks(line.original, line.candidate, rules, alpha),
        blind_check(blind, line.has_held_out, alpha, facts.seed),
        difficulty_check(facts.difficulty, alpha, line.original),
        copies_check(facts.near_duplicates, len(line.original[FORGET])),
        utility_check(line.original, line.candidate, rules, alpha, facts.forgotten_classes),
    ]


def _diagnostics(
    line: Line, policy: Policy, alpha: float, facts: Facts, references: Calibration | NotMeasurable
) -> tuple[list[Check], dict[str, Any]]:
    """(checks that decide nothing, metrics by name)."""
    rules = policy.verification
    measured, metrics = metric_checks(line)
    calibrated, more = reference_checks(line, references, rules, alpha)
    planted, found = canary_checks(line, rules, alpha, facts.traces, facts.canary_kinds)
    single, values = record_checks(line, references, alpha)
    texts, of_texts = text_checks(line, references, alpha)
    exposures, bits = exposure_checks(line, rules, alpha, facts.traces, facts.canary_kinds)
    said, shares = extraction_checks(line, references, rules, alpha, facts.seed)
    numbers, of_numbers = value_checks(line, rules, alpha)
    texts, of_texts = [*texts, *said, *numbers], of_texts | shares | of_numbers
    harm, of_kept = harm_checks(line, alpha, facts.canary_kinds)
    metrics |= guess_metrics(line, facts.canary_opposites) | of_kept
    metrics |= retrain_metrics(line, facts.seed) | more | values | found | of_texts | bits
    return [*measured, *calibrated, *single, *planted, *texts, *exposures, *harm], metrics


def provenance_check(provenance: Provenance | None, ignore_record: bool) -> Check:
    """`provenance` as a check: it gates where it holds, and where it was claimed and does not hold it says why."""
    values: dict[str, Any] = {"id": PROVENANCE, "role": "diagnostic", "statistic": "training record"}
    if ignore_record:
        return Check(**values, verdict="info", reason="the training record was ignored by request")
    if provenance is None or not provenance.claimed:
        reason = provenance.reason if provenance else "no training record was looked at"
        return Check(**values, verdict="info", reason=reason)
    return Check(**values, verdict="pass" if provenance.holds else "fail", reason=provenance.reason)


def _records(line: Line, facts: Facts) -> Records:
    scored = len(line.original[RETAIN])
    return Records(
        forget=len(line.original[FORGET]),
        retain=facts.retain_records if facts.retain_records is not None else scored,
        held_out=len(line.original[HELD_OUT]) if line.has_held_out else 0,
        retain_scored=scored,
        near_duplicates=facts.near_duplicates,
    )


def _unit(task: str, per_byte: bool) -> Literal["record", "token", "byte"]:
    if task != "causal-lm":
        return "record"
    return "byte" if per_byte else "token"


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def limits_of(checks: list[Check], basis: Basis, records: Records, traces: Traces | None, task: str) -> list[str]:
    """What this evidence does not show, in sentences."""
    by_id = {check.id: check for check in checks}
    if basis == "procedure":
        first = (
            "The verdict rests on the training record and its digests. Weights alone cannot show which data made them; "
            "the attacks were run and are printed as diagnostics."
        )
    else:
        first = "The verdict rests on the named attacks alone; others may find what these did not."
    sentences = [first, _power(by_id[MEMBERSHIP])]
    if by_id[CONTROL].verdict == "inconclusive":
        sentences.append("The attack did not find these records in the original either, so it shows little about them.")
    if by_id[BLIND].verdict == "inconclusive":
        sentences.append("Forgotten and held-out records differ without any model: the AUC is not interpretable.")
    sentences += trace_limits(traces, basis, by_id.get(CANARIES))
    sentences += [copies_limit(records.near_duplicates, task), reference_limit(by_id[REFERENCE])]
    if records.retain_scored < records.retain:
        sentences.append(f"{records.retain_scored} of {records.retain} retained records were scored, drawn at random.")
    return sentences


def _power(check: Check) -> str:
    if check.estimate is None or check.smallest_detectable is None:
        return "Not testable at this size or without held-out records: residual influence was not measured."
    return (
        f"An AUC further than {check.smallest_detectable:.3f} from 0.5 would have been noticed with 80 % probability; "
        "less could have been missed."
    )
