"""The sections behind page one: deadline, data, plan, publication, log, and how to check it all."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from service.reports.blocks import Block, Cell, bullets, facts, figures, mono, sentence, table, text
from service.reports.findings import verification
from service.reports.limits import count
from service.reports.schema import ArtefactPart, AttemptPart, NearDuplicatesPart, Report, TargetPart
from service.reports.wording import GRADES, check_name, interval, moment, number, reviewed, seconds, span


def clock(report: Report) -> Block:
    """The deadline and how it was kept."""
    times = report.clock
    extended = f", extended on {moment(times.extended_at)}" if times.extended_at else ""
    rows: list[list[Cell]] = [
        ["Regulation", report.request.regulation.upper()],
        ["Received", moment(times.received_at)],
        ["Acknowledged", moment(times.acknowledged_at)],
        ["Completed", f"{moment(times.completed_at)}, {span(times.days_taken)} after receipt"],
        ["Due", f"{moment(times.due_at)}{extended}"],
        ["Kept", f"yes, {span(times.days_left)} to spare" if times.in_time else f"no, {span(times.days_left)} late"],
        ["Subject", mono(report.request.pseudonym)],
    ]
    return {"title": "Deadline", "blocks": [facts(rows), *figures(report.plots)]}


def of_target(target: TargetPart, several: bool) -> list[Block]:
    """The sections on one model."""
    name = f"{target.model}: " if several else ""
    made = [
        {"title": f"{name}Scope and data", "blocks": _scope(target)},
        {"title": f"{name}Plan and attempts", "blocks": _plan(target)},
        {"title": f"{name}Verification", "blocks": verification(target)},
        {"title": f"{name}Publication", "blocks": _publication(target)},
        {"title": f"{name}What this evidence does not show", "blocks": [bullets(target.limits)]},
    ]
    return [section for section in made if section["blocks"]]


def _scope(target: TargetPart) -> list[Block]:
    data, scope = target.lineage.dataset, target.scope
    rows: list[list[Cell]] = [
        ["Model", f"{target.model} ({target.task})"],
        ["Records of this request", number(scope.records)],
    ]
    if target.publication:
        people = count(scope.job_subjects, "person", "people")
        others = f"{count(scope.job_records, 'record')} of {people} in {count(scope.job_requests, 'request')}"
        rows += [["Served by the same run", others], ["Copies among kept records", _copies(scope.near_duplicates)]]
    rows.append(["Training records", _change(data.records_before, data.records_after)])
    if data.unit and data.units_before is not None:
        rows.append([f"Training {data.unit}", _change(data.units_before, data.units_after)])
    rows.append(["Dataset digest", mono(data.digest_before)])
    if data.digest_after != data.digest_before:
        rows.append(["Dataset digest after", mono(data.digest_after)])
    for title, version in (("Old", target.lineage.base_version), ("New", target.lineage.new_version)):
        if version:
            rows.append([f"{title} version {version.number}", mono(version.digest)])
    return [text(scope.decision), facts(rows)]


def _copies(found: NearDuplicatesPart) -> str:
    return number(found.retained) if found.computed else "not searched for"


def _change(before: int | None, after: int | None) -> str:
    return f"{number(before)} before, {number(after)} after" if before != after else f"{number(before)}, unchanged"


def _plan(target: TargetPart) -> list[Block]:
    plan = target.plan
    if plan is None:
        return []
    rows: list[list[Cell]] = [["Planned order", ", then ".join(str(rung.get("method")) for rung in plan.rungs)]]
    if plan.alternatives:
        rows.append(["Alternatives", "; ".join(_plain(entry) for entry in plan.alternatives)])
    if plan.estimates:
        rows.append(["Estimated cost", "; ".join(_estimate(entry) for entry in plan.estimates)])
    rows.append(["Expected run time", seconds(plan.expected_seconds)])
    if target.policy:
        rows.append(["Policy digest", mono(target.policy.digest)])
    head = ["#", "Method", "Outcome", "Time", "Of a retrain", "Device", "Seed"]
    return [
        text(sentence(plan.why)),
        facts(rows),
        table(head, [_attempt(attempt) for attempt in target.attempts], "lllrrlr", grow=1),
        bullets([line for attempt in target.attempts for line in _attempt_notes(attempt)]),
        *figures(target.plots, "curve", "ledger"),
    ]


def _estimate(entry: Mapping[str, Any]) -> str:
    time = f", {seconds(entry['seconds'])}" if entry.get("seconds") is not None else ""
    return f"{entry.get('method')} {entry.get('share', 0.0):.0%} of a training{time}"


def _attempt(attempt: AttemptPart) -> list[Cell]:
    verdicts = {"passed": "pass", "failed": "fail", "inconclusive": "inconclusive"}
    outcome: Cell = {"verdict": verdicts[attempt.state]} if attempt.state in verdicts else attempt.state
    fraction = f"{attempt.fraction_of_retrain:.0%}" if attempt.fraction_of_retrain is not None else "–"
    device = attempt.device or "–"
    return [str(attempt.number), attempt.method, outcome, seconds(attempt.seconds), fraction, device, str(attempt.seed)]


def _attempt_notes(attempt: AttemptPart) -> list[str]:
    name = f"Attempt {attempt.number}"
    parameters = ", ".join(f"{key} = {_plain(value)}" for key, value in attempt.params.items()) or "none"
    lines = [f"{name}, {attempt.method}: parameters {parameters}; code {attempt.code_version or 'not recorded'}."]
    if attempt.error:
        lines.append(f"{name} broke off: {sentence(attempt.error)}")
    for check in attempt.verification.checks if attempt.verification else []:
        if check.role == "gate" and check.verdict in ("fail", "inconclusive"):
            reason = check.reason or f"estimate {number(check.estimate)}, interval {interval(check.ci)}"
            lines.append(f"{name} was not published: {check_name(check)}, {check.verdict}: {sentence(reason)}")
    return [*lines, *(f"{name}: {sentence(note)}" for note in attempt.notes)]


def _publication(target: TargetPart) -> list[Block]:
    publication = target.publication
    if publication is None:
        return []
    switched = f"{moment(publication.published_at)}, to version {publication.version.number}"
    rows: list[list[Cell]] = [["Serving switched", switched]]
    retired = publication.retired
    if retired:
        rows += [
            ["Retired", f"version {retired.number}, {moment(retired.retired_at)}; it cannot serve again"],
            ["Its destruction", _end(retired.destroy_by, retired.destroyed_at)],
        ]
    if publication.review:
        rows.append(["Reviewer", reviewed(publication.review)])
        if publication.review.reason_sha256:
            rows.append(["Digest of the reason", mono(publication.review.reason_sha256)])
    if not publication.artefacts:
        return [facts(rows)]
    return [
        facts(rows),
        text("Derived from the training data, and therefore given an end:"),
        table(["Artefact", "Digest begins", "End"], [_artefact(part) for part in publication.artefacts], "lll", grow=2),
    ]


def _artefact(part: ArtefactPart) -> list[Cell]:
    return [part.kind, mono((part.digest or "")[:16]), _end(part.destroy_by, part.destroyed_at)]


def _end(due: datetime | None, done: datetime | None) -> str:
    if done:
        return f"destroyed on {moment(done)}"
    return f"due by {moment(due)}" if due else "no date set"


def log(report: Report) -> Block:
    """The audit events that the report rests on."""
    told = (
        "Each event was written with the change it records and sealed into a hash chain: the leaf hash covers the "
        "event, the chain hash covers all that was sealed before it. Full hashes are in report.json and events.json."
    )
    head = ["Sequence", "Time (UTC)", "Event", "Leaf hash begins", "Chain hash begins"]
    rows = [_event(event) for event in report.log_proof.events]
    return {"title": "Log", "blocks": [text(told), table(head, rows, "rllll", grow=2)]}


def _event(event: dict[str, Any]) -> list[Cell]:
    time = str(event["at"])[:19].replace("T", " ")
    leaf, chain = str(event["leaf_hash"])[:16], str(event["chain_hash"])[:16]
    return [number(event["sequence"]), time, str(event["kind"]), mono(leaf), mono(chain)]


def how_to_check(report: Report) -> Block:
    """How a third party checks this report, and how to read its terms."""
    told = (
        "The bundle of this request (report/bundle) holds this report, its events, the public key and an Ed25519 "
        "signature. The command “lethe report verify bundle.zip” checks them offline; VERIFY.md in it says how "
        "to do so with openssl and Python alone. Compare the key with one that reached you another way."
    )
    terms = [
        "pass: the interval lies inside the margin that the policy fixed before the run. fail: it lies outside. "
        "inconclusive: neither, most often because there are too few records. released: inconclusive, and published "
        "by a reviewer's decision, as the policy allows.",
        "gate: the check decides about publication. diagnostic: it is printed and decides nothing.",
        "AUC: the chance that the attack ranks a forgotten record above one that was never trained on; one half is "
        "guessing, and both sides count: far below one half is as revealing as far above.",
        *(f"Grade {grade}: {meaning}." for grade, meaning in GRADES.items()),
    ]
    key: list[list[Cell]] = [["Signing key", mono(report.signatures[0].key_id)]]
    return {"title": "Checking this report", "blocks": [text(told), facts(key), bullets(terms)]}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
