"""What a report says of its reviewer, held against the policy and the log: a part of the stand-alone verifier.

Works on the parsed JSON of a report and needs nothing but the standard library and `service.verification`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from service.verification.release import PUBLISHED_STATES, why_not_releasable

_KINDS = {"released": "attempt.released", "approved": "publication.approved"}

Json = Mapping[str, Any]


def published_attempts(target: Json) -> list[Json]:
    """The attempts that the target says were published; a sound report has one."""
    return [attempt for attempt in target["attempts"] if attempt["state"] in PUBLISHED_STATES]


def verdict_faults(target: Json) -> Iterator[str]:
    """A version has passed, or it is inconclusive, has no grade and was released."""
    verification, grade = target["verification"], target["grade"]
    stated = (verification["verdict"], verification["grade"])
    if not any(attempt["state"] == "released" for attempt in published_attempts(target)):
        if stated != ("pass", grade):
            yield "a version was published with another verdict than pass, or the grades differ"
        return
    if stated != ("inconclusive", None) or grade is not None:
        yield "a released version is inconclusive and has no grade; this one is stated otherwise"
    why = why_not_releasable(verification)
    if why is not None:
        yield f"nobody could release this version: {why}"


def review_faults(target: Json, events: Sequence[Json]) -> Iterator[str]:
    """A line for everything about the reviewer that policy or log tell differently. `events`: all of the report."""
    policy = target["policy"]["document"].get("approval", {})
    review = target["publication"].get("review")
    for attempt in published_attempts(target):
        released = attempt["state"] == "released"
        if released and not policy.get("override"):
            yield "the policy does not allow a release (approval.override)"
        if review is None:
            if released or policy.get("publication"):
                yield "the report names no reviewer, and the policy asks for one"
            continue
        if (review["attempt"], review["kind"] == "released") != (attempt["number"], released):
            yield "the review is of another attempt, or of another kind, than what was published"
        yield from _log_faults(review, attempt, target["job_id"], events)


def _log_faults(review: Json, attempt: Json, job_id: str, events: Sequence[Json]) -> Iterator[str]:
    mine = [event for event in events if event["ref"] == job_id and event["data"].get("number") == attempt["number"]]
    entries = [event for event in mine if event["kind"] == _KINDS[review["kind"]]]
    if not entries:
        yield f"the log does not hold that attempt {attempt['number']} was {review['kind']}"
        return
    entry = entries[-1]
    if entry["actor"] != review["key_id"] or _moment(entry["at"]) != _moment(review["at"]):
        yield "the log names another reviewer or another time"
    if entry["data"]["digest"] != attempt["digest"]:
        yield "the log holds the review of a candidate with another digest"
    reason, digest = review["reason"], review["reason_sha256"]
    told = hashlib.sha256(reason.encode()).hexdigest() if reason is not None else None
    if not told == digest == entry["data"].get("reason_sha256"):
        yield "the reason is not the one whose digest is in the log"
    before = [event["sequence"] for event in mine if event["kind"] == "attempt.judged"]
    after = [e["sequence"] for e in events if e["kind"] == "version.published" and e["data"]["job"] == job_id]
    if not before or not after or not max(before) < entry["sequence"] < min(after):
        yield "the log does not hold the review between verdict and publication"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
