"""Made-up jobs and requests for the tests of reports: plain facts, score tables and a sealed chain of events."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from service.audit.service import EMPTY_CHAIN, chain, leaf_hash_of, timestamp
from service.reports.facts import AttemptFacts, JobEvidence, RequestFacts, TargetFacts
from service.reports.schema import ArtefactPart, DatasetPart, MadeWithPart, RetiredPart, ReviewPart, VersionPart
from service.verification.policy import Policy
from service.verification.qualification import made_with_digest
from service.verification.schema import Basis, Check, Evaluation, ModelNumbers, Models, Records, SetNumbers, Traces
from service.verification.verdict import decide, explain, judge

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
BASE, CANDIDATE, FAILED = "aa" * 32, "bb" * 32, "cc" * 32
REVIEWS = {"released": "attempt.released", "approved": "publication.approved"}
REQUEST, JOB = "req_01kbexample0000000000000001", "job_01kbexample0000000000000001"


AUC = Check(
    id="membership_auc",
    role="gate",
    statistic="AUC",
    estimate=0.518,
    alpha=0.025,
    ci=(0.452, 0.584),
    ci95=(0.444, 0.592),
    margin=0.1,
    n=90,
    m=300,
    cluster="subject",
    clusters=(12, 40),
    power_at_zero=0.86,
    smallest_detectable=0.093,
)
CHECKS = (
    Check(id="distinct", role="gate", statistic="digest differs from the original's", verdict="pass"),
    Check(id="sanity", role="gate", statistic="finite losses", verdict="pass"),
    AUC,
    AUC.model_copy(update={"id": "positive_control", "estimate": 0.79, "ci": (0.72, 0.85), "ci95": (0.71, 0.86)}),
    AUC.model_copy(update={"id": "blind_baseline", "estimate": 0.503, "ci": (0.44, 0.56), "ci95": (0.43, 0.57)}),
    AUC.model_copy(
        update={"id": "utility", "statistic": "accuracy difference", "estimate": -0.004, "margin": 0.04, "n": 300}
        | {"m": None, "ci": (-0.016, 0.008), "ci95": (-0.018, 0.01), "smallest_detectable": None}
    ),
)
REFERENCE = AUC.model_copy(update={"id": "reference_auc", "references": 8, "p_value": 0.62})
CALIBRATED = (
    REFERENCE,
    REFERENCE.model_copy(
        update={"id": "reference_control", "estimate": 0.81, "ci": (0.74, 0.87), "ci95": (0.73, 0.88)}
    ),
)
PLANTED = (
    AUC.model_copy(
        update={
            "id": "companion_canaries",
            "estimate": 0.53,
            "ci": (0.46, 0.6),
            "ci95": (0.45, 0.61),
            "n": 73,
            "m": 365,
        }
        | {"cluster": "canary", "clusters": (73, 365), "smallest_detectable": 0.105}
    ),
    AUC.model_copy(
        update={"id": "companion_rate", "estimate": 0.055, "ci": (0.015, 0.134), "ci95": (0.015, 0.134), "n": 73}
        | {"m": 365, "margin": 0.15, "cluster": "canary", "clusters": None, "smallest_detectable": None}
    ),
    AUC.model_copy(
        update={"id": "canary_control", "estimate": 0.889, "ci": (0.857, 0.921), "ci95": (0.857, 0.921), "n": 73}
        | {"m": 365, "cluster": "canary", "clusters": (73, 365)}
    ),
)
SINGLE = (
    AUC.model_copy(
        update={"id": "per_record", "estimate": 0.2, "ci": (-0.9, 1.3), "ci95": (-1.1, 1.5), "margin": 2.0, "n": 12}
        | {"m": 1200, "cluster": "record", "clusters": None, "smallest_detectable": 1.1, "p_value": 0.4}
    ),
    AUC.model_copy(
        update={"id": "record_control", "estimate": 4.1, "ci": (3.0, 5.2), "ci95": (2.8, 5.4), "margin": 2.0, "n": 12}
        | {"m": 1200, "cluster": "record", "clusters": None, "p_value": 1e-6}
    ),
)
MADE_WITH = MadeWithPart(recipe_digest="r" * 64, holdout_digest="h" * 64, packages={"torch": "2.3.0"})
TRACES = Traces(record=True, log="kept", canaries=73, reserved=41, held_out="reserve", carried_on=True)
PROVENANCE = Check(id="provenance", role="gate", statistic="training record", verdict="pass")


def evaluation(
    basis: Basis = "measurement",
    traces: Traces | None = None,
    near_duplicates: int | None = None,
    reference: dict[str, Any] | None = None,
    more: Sequence[Check] = (),
    **auc: Any,
) -> Evaluation:
    """An evaluation as `lethe evaluate --json` prints it; `auc` changes the membership check, `reference` that with
    reference models, which is left out without it, `more` adds checks."""
    policy = Policy()
    changed = [check.model_copy(update=auc) if check.id == "membership_auc" else check for check in CHECKS]
    if reference is not None:
        changed += [CALIBRATED[0].model_copy(update=reference), CALIBRATED[1]]
    checks = judge([*changed, *more, *([PROVENANCE] if basis == "procedure" else [])], basis, policy.verification)
    verdict, grade = decide(checks, basis)
    numbers = SetNumbers(loss=0.121, accuracy=0.962)
    figures = ModelNumbers(forget=numbers, retain=SetNumbers(loss=0.04, accuracy=0.991), held_out=numbers)
    return Evaluation(
        task="image-classification",
        records=Records(forget=90, retain=1347, held_out=300, retain_scored=1347, near_duplicates=near_duplicates),
        traces=traces,
        models=Models(original=figures, candidate=figures),
        checks=checks,
        metrics={
            "membership_auc": 0.518,
            "membership_auc_do_nothing": 0.79,
            "forgetting_rate_accuracy": 0.031,
            "memory_retention_rate": 0.984,
            "tow": None,
        },
        reason=explain(checks, basis),
        verdict=verdict,
        basis=basis,
        grade=grade,
        policy_digest=policy.digest(),
    )


def with_evaluation(job: JobEvidence, told: Evaluation) -> JobEvidence:
    """The job with another evaluation of what it published."""
    published = job.attempts[-1].model_copy(update={"verification": told})
    return job.model_copy(update={"attempts": [*job.attempts[:-1], published]})


def attempts(published: str = "nabla_tau") -> list[AttemptFacts]:
    """A first attempt that fails the gate and a second one that passes."""
    curve: list[dict[str, float | None]] = [
        {
            "step": float(step),
            "forget_loss": 0.05 + 0.012 * step,
            "selection_loss": 0.61,
            "retain_loss": 0.04 + 0.001 * (step % 7),
        }
        for step in range(0, 61, 4)
    ]
    common: dict[str, Any] = {"code_version": "0.1.0+g1a2b3c4", "device": "cpu", "peak_memory_bytes": 310_000_000}
    common["made_with"] = MADE_WITH
    failing = evaluation(estimate=0.31, ci=(0.25, 0.37), ci95=(0.24, 0.38))
    passing = evaluation(basis="procedure") if published == "retrain" else evaluation()
    return [
        AttemptFacts(
            number=1,
            method="negative_gradient_plus",
            params={"alpha": 0.9, "steps": 60, "learning_rate": 1e-4},
            seed=1234567,
            state="failed",
            seconds=3.4,
            fraction_of_retrain=0.11,
            digest=FAILED,
            verification=failing,
            curve=curve,
            **common,
        ),
        AttemptFacts(
            number=2,
            method=published,
            params={"alpha": 0.5, "floor": 0.1},
            seed=424242,
            state="passed",
            seconds=4.1,
            fraction_of_retrain=0.13,
            digest=CANDIDATE,
            verification=passing,
            curve=curve
            if published != "retrain"
            else [{"step": float(step), "loss": 2.3 * 0.97**step} for step in range(0, 120, 5)],
            **common,
        ),
    ]


def evidence(job_id: str = JOB, published: str = "nabla_tau", **changes: Any) -> JobEvidence:
    """A job that published version 2 of `digits`."""
    policy = Policy()
    retired = RetiredPart(
        number=1,
        digest=BASE,
        retired_at=NOW - timedelta(minutes=1),
        destroy_by=NOW + timedelta(days=7),
        destroyed_at=None,
    )
    facts = {
        "job_id": job_id,
        "model": "digits",
        "task": "image-classification",
        "requests": 2,
        "records": 90,
        "subjects": 12,
        "started_at": NOW - timedelta(minutes=4),
        "dataset": DatasetPart(
            digest_before="d1" * 32,
            digest_after="d1" * 32,
            records_before=1437,
            records_after=1347,
            unit="images",
            units_before=1437,
            units_after=1347,
        ),
        "base_version": VersionPart(number=1, digest=BASE),
        "new_version": VersionPart(number=2, digest=CANDIDATE),
        "policy": policy.model_dump(mode="json"),
        "policy_digest": policy.digest(),
        "plan": {
            "rungs": [
                {"method": "negative_gradient_plus", "params": {}, "kind": "approximate"},
                {"method": published, "params": {}, "kind": "approximate"},
                {"method": "retrain", "params": {}, "kind": "exact"},
            ],
            "why": "90 records of 12 people are enough to judge an approximate attempt; retraining follows",
            "alternatives": ["retrain at once: about 31 s"],
            "expected_seconds": 12.5,
        },
        "attempts": attempts(published),
        "published_at": NOW - timedelta(minutes=1),
        "retired": retired,
        "artefacts": [
            ArtefactPart(
                id="art_1", kind="version", digest=BASE, destroy_by=NOW + timedelta(days=7), destroyed_at=None
            ),
            ArtefactPart(id="art_2", kind="job-files", digest=None, destroy_by=NOW, destroyed_at=None),
        ],
    }
    return JobEvidence.model_validate(facts | changes)


def nothing_found(**changes: Any) -> JobEvidence:
    """A job that had nothing to forget."""
    absent: dict[str, Any] = dict.fromkeys(("plan", "new_version", "published_at", "retired"))
    return evidence(**absent | {"attempts": [], "artefacts": [], "records": 0, "subjects": 0} | changes)


def request(**changes: Any) -> RequestFacts:
    """A GDPR request that took an hour."""
    facts = {
        "id": REQUEST,
        "pseudonym": "5f" * 32,
        "regulation": "gdpr",
        "received_at": NOW - timedelta(hours=1),
        "acknowledged_at": NOW - timedelta(hours=1) + timedelta(seconds=1),
        "due_at": NOW + timedelta(days=30),
        "completed_at": NOW - timedelta(minutes=1),
    }
    return RequestFacts.model_validate(facts | changes)


def target(**changes: Any) -> TargetFacts:
    """The request's part in the job."""
    return TargetFacts.model_validate(
        {"model": "digits", "outcome": "published", "records": 75, "job_id": JOB} | changes
    )


def sealed(entries: list[tuple[str, str, dict[str, Any]]], review: ReviewPart | None = None) -> list[dict[str, Any]]:
    """Events (kind, ref, data) in a chain that also holds events of others, as `sealed_events` answers them.

    Those of REVIEWS are the reviewer's, the others a worker's.
    """
    previous, told = EMPTY_CHAIN, []
    for sequence, (kind, ref, data) in enumerate(entries, 1):
        theirs = review if kind in REVIEWS.values() else None
        event: dict[str, Any] = {
            "id": f"evt_{sequence:026d}",
            "kind": kind,
            "at": timestamp(theirs.at if theirs else NOW - timedelta(minutes=30 - sequence)),
            "actor": theirs.key_id if theirs else "worker",
            "ref": ref,
            "data": data,
            "sequence": sequence,
        }
        event["leaf_hash"] = leaf_hash_of(event)
        event["previous_chain_hash"], previous = previous, chain(previous, event["leaf_hash"])
        event["chain_hash"] = previous
        told.append(event)
    return [event for event in told if event["ref"] != "others"]


def events(job: JobEvidence | None = None) -> list[dict[str, Any]]:
    """The log of a request and its job."""
    job = job or evidence()
    entries: list[tuple[str, str, dict[str, Any]]] = [
        ("request.accepted", REQUEST, {"regulation": "gdpr"}),
        ("request.accepted", "others", {}),
        ("job.resolved", job.job_id, {"records": 90, "subjects": 12}),
        ("job.planned", job.job_id, {"methods": ["nabla_tau", "retrain"], "policy": job.policy_digest}),
    ]
    for attempt in job.attempts:
        proposed = {
            "number": attempt.number,
            "method": attempt.method,
            "digest": attempt.digest,
            "seconds": attempt.seconds,
        }
        if attempt.made_with is not None:
            proposed["made_with"] = made_with_digest(attempt.made_with.model_dump())
        told = attempt.verification
        assert told is not None
        judged = {
            "number": attempt.number,
            "method": attempt.method,
            "verdict": told.verdict,
            "basis": told.basis,
            "grade": told.grade,
        }
        entries += [("attempt.proposed", job.job_id, proposed), ("attempt.judged", job.job_id, judged)]
    if job.review:
        reviewed = {"number": job.review.attempt, "digest": job.attempts[-1].digest}
        reviewed |= {"reason_sha256": job.review.reason_sha256} if job.review.reason_sha256 else {}
        entries.append((REVIEWS[job.review.kind], job.job_id, reviewed))
    if job.new_version:
        published = {"job": job.job_id, "digest": job.new_version.digest, "number": job.new_version.number}
        entries.append(("version.published", "ver_1", published))
    return sealed(entries, job.review)


def score_tables(folder: Path, n: int = 90, m: int = 300, canaries: int = 0, outside: int = 365) -> dict[str, Path]:
    """Arrow tables of two models with a column `set`; forgotten records and canaries stand out in the first."""
    random, planted = np.random.default_rng(0), np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for model, shift in (("original", 2.0), ("candidate", 0.1)):
        confidence = np.concatenate([random.normal(shift, 2, n), random.normal(0, 2, m)])
        names = ["forget"] * n + ["held_out"] * m
        if canaries:
            extra = (planted.normal(3 * (shift > 1), 2, canaries), planted.normal(0, 2, outside))
            confidence = np.concatenate([confidence, *extra])
            names += ["canary"] * canaries + ["canary_out"] * outside
        table = pa.table(
            {
                "record_id": [f"r{index}" for index in range(len(names))],
                "subject_id": [f"s{index // 5}" for index in range(len(names))],
                "set": names,
                "loss": np.exp(-confidence),
                "confidence": confidence,
            }
        )
        paths[model] = folder / f"{model}.arrow"
        with pa.OSFile(str(paths[model]), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return paths
