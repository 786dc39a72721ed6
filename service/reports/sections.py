"""The sections behind page one: tables and figures for each part of the report."""

import json
from typing import Any

from service.reports.limits import count
from service.reports.schema import AttemptPart, PlotPart, Report, TargetPart
from service.reports.wording import check_name, interval, moment, number, seconds, span

Block = dict[str, Any]
Cell = str | dict[str, str]


def mono(text: str | None) -> Cell:
    """A digest or other literal; a dash for none."""
    return {"mono": text} if text else "–"


def clock(report: Report) -> Block:
    """The deadline and how it was kept."""
    times = report.clock
    rows: list[list[Cell]] = [
        ["Regulation", report.request.regulation.upper()],
        ["Received", moment(times.received_at)],
        ["Acknowledged", moment(times.acknowledged_at)],
        ["Completed", f"{moment(times.completed_at)}, {span(times.days_taken)} after receipt"],
        ["Due", f"{moment(times.due_at)}" + (f", extended on {moment(times.extended_at)}" if times.extended_at else "")],
        ["Kept", f"yes, {span(times.days_left)} to spare" if times.in_time else f"no, {span(times.days_left)} late"],
        ["Subject", mono(report.request.pseudonym)],
    ]
    return {"title": "Deadline", "blocks": [{"kind": "facts", "rows": rows}, *_figures(report.plots)]}


def of_target(target: TargetPart, several: bool) -> list[Block]:
    """The sections on one model."""
    name = f"{target.model}: " if several else ""
    made = [
        {"title": f"{name}Scope and data", "blocks": _scope(target)},
        {"title": f"{name}Plan and attempts", "blocks": _plan(target)},
        {"title": f"{name}Verification", "blocks": _verification(target)},
        {"title": f"{name}Publication", "blocks": _publication(target)},
    ]
    limits = {"title": f"{name}What this evidence does not show", "blocks": [{"kind": "list", "items": target.limits}]}
    return [*(part for part in made if part["blocks"]), limits]


def _scope(target: TargetPart) -> list[Block]:
    data, scope = target.lineage.dataset, target.scope
    rows: list[list[Cell]] = [
        ["Model", f"{target.model} ({target.task})"],
        ["Records of this request", number(scope.records)],
    ]
    if target.publication:
        others = f"{count(scope.job_records, 'record')} of {count(scope.job_subjects, 'person', 'people')} in {count(scope.job_requests, 'request')}"
        rows += [["Served by the same run", others], ["Similar records of others", "not searched for"]]
    rows.append(["Training records", _change(data.records_before, data.records_after)])
    if data.unit and data.units_before is not None:
        rows.append([f"Training {data.unit}", _change(data.units_before, data.units_after)])
    rows.append(["Dataset digest", mono(data.digest_before)])
    if data.digest_after != data.digest_before:
        rows.append(["Dataset digest after", mono(data.digest_after)])
    for title, version in (("Old", target.lineage.base_version), ("New", target.lineage.new_version)):
        if version:
            rows.append([f"{title} version {version.number}", mono(version.digest)])
    return [{"kind": "text", "text": scope.decision}, {"kind": "facts", "rows": rows}]


def _change(before: int | None, after: int | None) -> str:
    return f"{number(before)} before, {number(after)} after" if before != after else f"{number(before)}, unchanged"


def _plan(target: TargetPart) -> list[Block]:
    if target.plan is None:
        return []
    blocks: list[Block] = [{"kind": "text", "text": _sentence(target.plan.why)}]
    rungs = ", then ".join(str(rung.get("method")) for rung in target.plan.rungs)
    rows: list[list[Cell]] = [["Planned order", rungs]]
    if target.plan.alternatives:
        rows.append(["Alternatives", "; ".join(_plain(entry) for entry in target.plan.alternatives)])
    rows.append(["Expected run time", seconds(target.plan.expected_seconds)])
    if target.policy:
        rows.append(["Policy digest", mono(target.policy.digest)])
    head = ["#", "Method", "Outcome", "Time", "Of a retrain", "Device", "Seed"]
    table = [
        [
            str(attempt.number),
            attempt.method,
            _state(attempt),
            seconds(attempt.seconds),
            f"{attempt.fraction_of_retrain:.0%}" if attempt.fraction_of_retrain is not None else "–",
            attempt.device or "–",
            str(attempt.seed),
        ]
        for attempt in target.attempts
    ]
    blocks += [{"kind": "facts", "rows": rows}, {"kind": "table", "head": head, "rows": table, "align": "lllrrlr", "grow": 1}]
    details = [line for attempt in target.attempts for line in _attempt_notes(attempt)]
    if details:
        blocks.append({"kind": "list", "items": details})
    return [*blocks, *_figures(target.plots, "curve")]


def _state(attempt: AttemptPart) -> Cell:
    states = {"passed": "pass", "failed": "fail", "inconclusive": "inconclusive"}
    return {"verdict": states[attempt.state]} if attempt.state in states else attempt.state


def _attempt_notes(attempt: AttemptPart) -> list[str]:
    parameters = ", ".join(f"{key} = {_plain(value)}" for key, value in attempt.params.items()) or "none"
    lines = [f"Attempt {attempt.number}, {attempt.method}: parameters {parameters}; code {attempt.code_version or 'not recorded'}."]
    if attempt.error:
        lines.append(f"Attempt {attempt.number} broke off: {_sentence(attempt.error)}")
    for check in (attempt.verification or {}).get("checks", []):
        if check.get("role") == "gate" and check.get("verdict") in ("fail", "inconclusive"):
            reason = check.get("reason") or f"estimate {number(check.get('estimate'))}, interval {interval(check.get('ci'))}"
            lines.append(f"Attempt {attempt.number} was not published: {check_name(check)}, {check['verdict']}: {_sentence(reason)}")
    lines += [f"Attempt {attempt.number}: {_sentence(note)}" for note in attempt.notes]
    return lines


def _verification(target: TargetPart) -> list[Block]:
    evaluation = target.verification
    if evaluation is None:
        return []
    rows = [_check_row(check) for check in evaluation.get("checks", [])]
    head = ["Check", "Role", "Estimate", "Interval that decides", "95 % interval", "Margin", "n", "m", "Result"]
    sizes = evaluation.get("records", {})
    told = ", ".join(f"{name.replace('_', '-')} {number(size)}" for name, size in sizes.items())
    reasons = [
        f"{check_name(check)}: {_sentence(str(check['reason']))}" for check in evaluation.get("checks", []) if check.get("reason")
    ]
    blocks: list[Block] = [
        {
            "kind": "text",
            "text": f"Basis: {evaluation.get('basis')}. Grade: {target.grade or 'none'}. Records scored: {told or 'not recorded'}.",
        },
        {"kind": "table", "head": head, "rows": rows, "align": "llrllrrrl", "wide": True, "grow": 0},
    ]
    if reasons:
        blocks.append({"kind": "list", "items": reasons})
    return [*blocks, *_models(target, evaluation), *_figures(target.plots, "scores", "roc")]


def _check_row(check: dict[str, Any]) -> list[Cell]:
    return [
        check_name(check),
        str(check.get("role", "–")),
        number(check.get("estimate")),
        interval(check.get("ci")),
        interval(check.get("ci95")),
        number(check.get("margin")),
        number(check.get("n")),
        number(check.get("m")),
        {"verdict": str(check.get("verdict", "info"))},
    ]


def _models(target: TargetPart, evaluation: dict[str, Any]) -> list[Block]:
    """Accuracy or perplexity and mean loss of each model on each set."""
    models = evaluation.get("models") or {}
    named = [("old version", models.get("original")), ("new version", models.get("candidate"))]
    named += [(f"retrained {index}", entry) for index, entry in enumerate(models.get("retrained") or [], 1)]
    rows: list[list[Cell]] = []
    keys: list[str] = []
    for name, entry in named:
        figures = dict(_flat(entry)) if entry else {}
        keys = keys or list(figures)
        if figures:
            rows.append([name, *(number(figures.get(key)) for key in keys)])
    if not rows:
        return []
    head = ["Model", *(key.replace("_", " ").replace("held out", "held-out") for key in keys)]
    return [{"kind": "table", "head": head, "rows": rows, "align": "l" + "r" * len(keys), "grow": 0}]


def _flat(entry: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in entry.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _publication(target: TargetPart) -> list[Block]:
    publication = target.publication
    if publication is None:
        return []
    rows: list[list[Cell]] = [
        ["Serving switched", f"{moment(publication.published_at)}, to version {publication.version.number}"],
    ]
    retired = publication.retired
    if retired:
        rows += [
            ["Retired", f"version {retired.number}, {moment(retired.retired_at)}; it cannot serve again"],
            ["Its destruction", _end(retired.destroy_by, retired.destroyed_at)],
        ]
    table = [[part.kind, mono((part.digest or "")[:16]), _end(part.destroy_by, part.destroyed_at)] for part in publication.artefacts]
    blocks: list[Block] = [{"kind": "facts", "rows": rows}]
    if table:
        blocks += [
            {"kind": "text", "text": "Derived from the training data, and therefore given an end:"},
            {"kind": "table", "head": ["Artefact", "Digest begins", "End"], "rows": table, "align": "lll", "grow": 2},
        ]
    return blocks


def _end(due: Any, done: Any) -> str:
    if done:
        return f"destroyed on {moment(done)}"
    return f"due by {moment(due)}" if due else "no date set"


def log(report: Report) -> Block:
    """The audit events that the report rests on."""
    rows: list[list[Cell]] = [
        [number(event["sequence"]), str(event["at"]).replace("T", " ")[:19], str(event["kind"]), mono(str(event["leaf_hash"])[:16]), mono(str(event["chain_hash"])[:16])]
        for event in report.log_proof.events
    ]
    told = (
        "Each event was written with the change it records and sealed into a hash chain: the hash of an event covers its "
        "content, the chain hash covers everything sealed before it. Full hashes are in report.json and events.json."
    )
    head = ["Sequence", "Time (UTC)", "Event", "Leaf hash begins", "Chain hash begins"]
    return {
        "title": "Log",
        "blocks": [{"kind": "text", "text": told}, {"kind": "table", "head": head, "rows": rows, "align": "rllll", "grow": 2}],
    }


def how_to_check(report: Report) -> Block:
    """How a third party checks this report, and how to read its terms."""
    key = report.signatures[0].key_id
    terms = [
        "pass: the interval lies inside the margin that the policy fixed before the run. fail: it lies outside. "
        "inconclusive: neither, most often because there are too few records.",
        "gate: the check decides about publication. diagnostic: it is printed and decides nothing.",
        "AUC: the chance that the attack ranks a forgotten record above one that was never trained on; one half is guessing, "
        "and both sides count: far below one half is as revealing as far above.",
        "Grade A: exact method, judged by procedure. B and C: approximate method, judged by measurement; C has the coarser "
        "margin or fewer records.",
    ]
    return {
        "title": "Checking this report",
        "blocks": [
            {
                "kind": "text",
                "text": "The bundle of this request (report/bundle) holds this report, its events, the public key and an "
                "Ed25519 signature. The command “lethe report verify bundle.zip” checks them offline; VERIFY.md in it says how to "
                "do so with openssl and Python alone. Compare the key with one that reached you another way.",
            },
            {"kind": "facts", "rows": [["Signing key", mono(key)]]},
            {"kind": "list", "items": terms},
        ],
    }


def _figures(plots: list[PlotPart], *names: str) -> list[Block]:
    return [
        {"kind": "figure", "name": plot.name, "title": plot.title, "caption": plot.caption, "alt": plot.alt}
        for plot in plots
        if not names or plot.name.rpartition("/")[2] in names
    ]


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
