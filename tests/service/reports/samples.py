"""Made-up jobs and requests for the tests of reports: plain facts, score tables and a sealed chain of events."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from service.audit.service import EMPTY_CHAIN, chain, leaf_hash_of, timestamp
from service.reports.facts import AttemptFacts, JobEvidence, RequestFacts, TargetFacts
from service.reports.schema import ArtefactPart, DatasetPart, RetiredPart, VersionPart

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
BASE, CANDIDATE, FAILED = "aa" * 32, "bb" * 32, "cc" * 32
REQUEST, JOB = "req_01kbexample0000000000000001", "job_01kbexample0000000000000001"


def check(name: str, **values: Any) -> dict[str, Any]:
    """One check of an evaluation, nulls where nothing is given."""
    keys = "statistic estimate alpha ci ci95 margin n m cluster power_at_zero smallest_detectable reason".split()
    return {"id": name, "role": "gate", **dict.fromkeys(keys), "verdict": "pass", **values}


def evaluation(verdict: str = "pass", basis: str = "measurement", **auc: Any) -> dict[str, Any]:
    """An evaluation of the shape of `lethe evaluate --json`."""
    numbers = {"accuracy": 0.962, "loss": 0.121}
    figures = {"forget": numbers, "retain": {"accuracy": 0.991, "loss": 0.04}, "held_out": numbers}
    values = {
        "statistic": "AUC", "estimate": 0.518, "alpha": 0.025, "ci": [0.452, 0.584], "ci95": [0.444, 0.592],
        "margin": 0.1, "n": 90, "m": 300, "cluster": "subject", "power_at_zero": 0.86, "smallest_detectable": 0.093,
        "verdict": verdict,
    }
    return {
        "schema": "lethe/evaluation/1",
        "task": "image-classification",
        "records": {"forget": 90, "retain": 1347, "held_out": 300},
        "models": {"original": figures, "candidate": figures, "retrained": []},
        "checks": [
            check("membership_auc", **values | auc),
            check("utility", statistic="accuracy difference", estimate=-0.004, alpha=0.025, ci=[-0.016, 0.008], ci95=[-0.018, 0.01], margin=0.04, n=300, cluster="subject"),
            check("blind_baseline", role="diagnostic", statistic="AUC", estimate=0.503, ci95=[0.44, 0.56], n=90, m=300, verdict="info"),
        ],
        "metrics": {"membership_auc": 0.518, "forgetting_rate_accuracy": 0.03},
        "verdict": verdict,
        "basis": basis,
        "grade": "A" if basis == "procedure" else "C",
    }


def attempts(published: str = "nabla_tau") -> list[AttemptFacts]:
    """A first attempt that fails the gate and a second one that passes."""
    curve: list[dict[str, float | None]] = [
        {"step": float(step), "forget_loss": 0.05 + 0.012 * step, "selection_loss": 0.61, "retain_loss": 0.04 + 0.001 * (step % 7)}
        for step in range(0, 61, 4)
    ]
    common = {"code_version": "0.1.0+g1a2b3c4", "device": "cpu", "peak_memory_bytes": 310_000_000}
    failing = evaluation("fail", estimate=0.31, ci=[0.25, 0.37], ci95=[0.24, 0.38], reason="the attack is far below one half: over-unlearned")
    passing = evaluation(basis="procedure") if published == "retrain" else evaluation()
    return [
        AttemptFacts(
            number=1, method="negative_gradient_plus", params={"alpha": 0.9, "steps": 60, "learning_rate": 1e-4}, seed=1234567,
            state="failed", seconds=3.4, fraction_of_retrain=0.11, digest=FAILED, verification=failing, curve=curve, **common,
        ),
        AttemptFacts(
            number=2, method=published, params={"alpha": 0.5, "floor": 0.1}, seed=424242, state="passed", seconds=4.1,
            fraction_of_retrain=0.13, digest=CANDIDATE, verification=passing,
            curve=curve if published != "retrain" else [{"step": float(step), "loss": 2.3 * 0.97**step} for step in range(0, 120, 5)],
            **common,
        ),
    ]


def evidence(job_id: str = JOB, published: str = "nabla_tau", **changes: Any) -> JobEvidence:
    """A job that published version 2 of `digits`."""
    policy = {"ladder": {"methods": ["auto"], "approximate_attempts": 2}, "verification": {"alpha": 0.05}}
    retired = RetiredPart(number=1, digest=BASE, retired_at=NOW - timedelta(minutes=1), destroy_by=NOW + timedelta(days=7), destroyed_at=None)
    facts = {
        "job_id": job_id, "model": "digits", "task": "image-classification", "requests": 2, "records": 90, "subjects": 12,
        "started_at": NOW - timedelta(minutes=4),
        "dataset": DatasetPart(
            digest_before="d1" * 32, digest_after="d1" * 32, records_before=1437, records_after=1347, unit="images",
            units_before=1437, units_after=1347,
        ),
        "base_version": VersionPart(number=1, digest=BASE),
        "new_version": VersionPart(number=2, digest=CANDIDATE),
        "policy": policy, "policy_digest": "ee" * 32,
        "plan": {
            "rungs": [{"method": "negative_gradient_plus", "params": {}, "kind": "approximate"}, {"method": published, "params": {}, "kind": "approximate"}, {"method": "retrain", "params": {}, "kind": "exact"}],
            "why": "90 records of 12 people are enough to judge an approximate attempt; retraining follows where none passes",
            "alternatives": ["retrain at once: about 31 s"], "expected_seconds": 12.5,
        },
        "attempts": attempts(published),
        "published_at": NOW - timedelta(minutes=1),
        "retired": retired,
        "artefacts": [
            ArtefactPart(id="art_1", kind="version", digest=BASE, destroy_by=NOW + timedelta(days=7), destroyed_at=None),
            ArtefactPart(id="art_2", kind="job-files", digest=None, destroy_by=NOW, destroyed_at=None),
        ],
    }
    return JobEvidence.model_validate(facts | changes)


def request(**changes: Any) -> RequestFacts:
    """A GDPR request that took an hour."""
    facts = {
        "id": REQUEST, "pseudonym": "5f" * 32, "regulation": "gdpr", "received_at": NOW - timedelta(hours=1),
        "acknowledged_at": NOW - timedelta(hours=1) + timedelta(seconds=1), "due_at": NOW + timedelta(days=30),
        "completed_at": NOW - timedelta(minutes=1),
    }
    return RequestFacts.model_validate(facts | changes)


def target(**changes: Any) -> TargetFacts:
    """The request's part in the job."""
    return TargetFacts.model_validate({"model": "digits", "outcome": "published", "records": 75, "job_id": JOB} | changes)


def sealed(entries: list[tuple[str, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Events (kind, ref, data) in a chain that also holds events of others, as `sealed_events` answers them."""
    previous, told = EMPTY_CHAIN, []
    for sequence, (kind, ref, data) in enumerate(entries, 1):
        event: dict[str, Any] = {
            "id": f"evt_{sequence:026d}", "kind": kind, "at": timestamp(NOW - timedelta(minutes=30 - sequence)), "actor": "worker",
            "ref": ref, "data": data, "sequence": sequence,
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
        proposed = {"number": attempt.number, "method": attempt.method, "digest": attempt.digest, "seconds": attempt.seconds}
        told = attempt.verification or {}
        judged = {"number": attempt.number, "method": attempt.method, "verdict": told["verdict"], "basis": told["basis"], "grade": told["grade"]}
        entries += [("attempt.proposed", job.job_id, proposed), ("attempt.judged", job.job_id, judged)]
    entries += [("version.published", job.job_id, {"digest": CANDIDATE, "number": 2})]
    return sealed(entries)


def score_tables(folder: Path, n: int = 90, m: int = 300) -> dict[str, Path]:
    """Arrow tables of two models with a column `set`; forgotten records stand out in the first."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for model, shift in (("original", 2.0), ("candidate", 0.1)):
        confidence = np.concatenate([random.normal(shift, 2, n), random.normal(0, 2, m)])
        table = pa.table(
            {
                "record_id": [f"r{index}" for index in range(n + m)],
                "subject_id": [f"s{index // 5}" for index in range(n + m)],
                "set": ["forget"] * n + ["held_out"] * m,
                "loss": np.exp(-confidence),
                "confidence": confidence,
            }
        )
        paths[model] = folder / f"{model}.arrow"
        with pa.OSFile(str(paths[model]), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return paths
