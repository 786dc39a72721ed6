"""What a report says of qualified methods, derived again: a part of the stand-alone verifier.

An evaluation that names a qualification carries the whole document and what it was compared with. Both are held against
each other, the document against its own figures and digest, and the use against the rest of the report and the log.
The figures themselves are those of whoever measured them.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from service.catalogue.precisions import FULL
from service.verification.qualification import made_with_digest, rules_digest, unsupported
from service.verification.schema import EVALUATION, Qualified

Json = Mapping[str, Any]


def qualification_faults(target: Json, events: Sequence[Json]) -> Iterator[str]:
    """A line for every stated qualification that does not cover the attempt it is stated for.

    `target`: one with a published version; `events`: all of the report. Evaluations by older rules are left out, since
    they are refused as a whole. Reports of earlier versions do not say what an attempt was made with.
    """
    yield from _made_otherwise(target, events)
    for attempt, evaluation in _judged(target):
        stated = evaluation.get("qualification")
        if stated is None or evaluation.get("schema") != EVALUATION:
            continue
        name = f"attempt {attempt['number']}"
        found = Qualified.model_validate(stated)
        yield from (f"{name}: {line}" for line in unsupported(found, attempt["method"], attempt["params"]))
        if found.use is not None:
            yield from (f"{name}: {line}" for line in _against_report(found, attempt, evaluation, target))
            yield from (f"{name}: {line}" for line in _against_log(found, attempt, target["job_id"], events))


def _made_otherwise(target: Json, events: Sequence[Json]) -> Iterator[str]:
    """What the report says of rules, recipe, held-out set and packages is what its policy and the log say."""
    told = target["policy"].get("rules_digest")
    if told is not None and told != rules_digest(target["policy"]["document"]):
        yield "the digest of the rules is not that of the policy in the report"
    for attempt in target["attempts"]:
        made = attempt.get("made_with")
        logged = [
            event["data"].get("made_with")
            for event in _of_attempt("attempt.proposed", attempt, target["job_id"], events)
        ]
        stated = made_with_digest(made) if made is not None else None
        if attempt["digest"] is not None and (made is not None or any(logged)) and stated not in logged:
            yield f"attempt {attempt['number']}: the log does not hold what it is said to have been made with"


def _of_attempt(kind: str, attempt: Json, job_id: str, events: Sequence[Json]) -> list[Json]:
    """Events of this kind about the attempt."""
    wanted = (kind, job_id, attempt["number"])
    return [event for event in events if (event["kind"], event["ref"], event["data"].get("number")) == wanted]


def _judged(target: Json) -> Iterator[tuple[Json, Json]]:
    """Attempts with their evaluations; that of the published one stands at the target."""
    new = target["lineage"]["new_version"]["digest"]
    for attempt in target["attempts"]:
        evaluations = [attempt["verification"], target["verification"] if attempt["digest"] == new else None]
        yield from ((attempt, evaluation) for evaluation in evaluations if evaluation is not None)


def _against_report(found: Qualified, attempt: Json, evaluation: Json, target: Json) -> Iterator[str]:
    use, policy = found.use, target["policy"]["document"]
    if use is None:
        return
    for what, stated, told in (
        ("task", use.task, target["task"]),
        ("data set", use.data_digest, target["lineage"]["dataset"]["digest_before"]),
        ("number of records", use.records, target["scope"]["job_records"]),
        ("number of companion canaries", use.companions, policy["verification"]["companions"]),
        ("policy", use.rules_digest, rules_digest(policy)),
        ("version of the code", use.code_version, attempt["code_version"]),
    ):
        if stated != told:
            yield f"its qualification was looked up for another {what}"
    made = attempt.get("made_with")
    for what, key in (("recipe", "recipe_digest"), ("held-out set", "holdout_digest"), ("set of packages", "packages")):
        if made is not None and getattr(use, key) != made[key]:
            yield f"its qualification was looked up for another {what}"
    # Reports of earlier versions have no digests of these, but whether the held-out set was given or drawn.
    held_out = (evaluation.get("traces") or {}).get("held_out", "none")
    if held_out != "none" and (use.holdout_digest is not None) != (held_out == "given"):
        yield "its qualification was looked up for another held-out set"
    served = evaluation.get("serve_precision", FULL)
    if served != FULL:
        yield f"methods are qualified in {FULL}, and this version is served in {served}"


def _against_log(found: Qualified, attempt: Json, job_id: str, events: Sequence[Json]) -> Iterator[str]:
    """The method and the day are those of the log; a judgement that began before midnight may end after it."""
    judged = _of_attempt("attempt.judged", attempt, job_id, events)
    if not any(event["data"].get("method") == attempt["method"] for event in judged):
        yield f"the log does not hold that {attempt['method']} was judged"
    days = [date.fromisoformat(event["at"][:10]) for event in judged]
    if not any(timedelta(0) <= day - found.looked_at <= timedelta(days=1) for day in days):
        yield f"its qualification was looked up on {found.looked_at}, and the log says that it was judged another day"
