"""Every error a user can meet, as one small tree.

    LetheError                  500  internal
    ├── BadRequest              400  bad_request
    │   ├── MalformedBody       400  malformed_body
    │   └── UnsupportedMedia    415  unsupported_media_type
    ├── Unauthorized            401  unauthorized
    │   └── KeyExpired          401  key_expired
    ├── Forbidden               403  forbidden
    │   └── PolicyForbids       403  policy_forbids
    ├── NotFound                404  not_found
    ├── MethodNotAllowed        405  method_not_allowed
    ├── Conflict                409  conflict
    │   ├── ReportNotReady      409  report_not_ready
    │   ├── TooLate             409  too_late
    │   ├── NotWaiting          409  not_waiting
    │   ├── JobNotFailed        409  job_not_failed
    │   ├── NotReleasable       409  not_releasable
    │   ├── CandidateUnusable   409  candidate_unusable
    │   ├── RequestsChanged     409  requests_changed
    │   └── Outdated            409  outdated
    ├── Gone                    410  gone
    ├── BodyTooLarge            413  body_too_large
    ├── Invalid                 422  invalid
    │   ├── UnknownModel        422  unknown_model
    │   ├── UnknownRegulation   422  unknown_regulation
    │   ├── UnknownIdentifier   422  unknown_identifier_type
    │   ├── EmptySubject        422  empty_subject
    │   ├── IdempotencyMismatch 422  idempotency_mismatch
    │   ├── UnknownAttempt      422  unknown_attempt
    │   ├── BadDataset          422  bad_dataset
    │   ├── BadModel            422  bad_model
    │   ├── BadRecipe           422  bad_recipe
    │   ├── BadPolicy           422  bad_policy
    │   └── BadParameters       422  bad_parameters
    ├── Unavailable             503  unavailable
    └── JobError                500  job_failed
        ├── OutOfMemory         500  out_of_memory
        ├── DiskFull            507  disk_full
        ├── Cancelled           499  cancelled
        ├── Unevaluable         500  unevaluable
        ├── MethodRefused       500  method_refused
        └── LeaseLost           500  lease_lost

A class is an HTTP status and a stable code. The message says what was wrong, where, and how to mend it, in one line
and without personal data: it is shown to callers, printed by the command line and stored in job rows.
"""

from collections.abc import Sequence
from typing import Any


class LetheError(Exception):
    """Base of the tree. `detail` is one line for people; `pointer` is a JSON pointer into the request body.

    `errors` lists further (pointer, detail) pairs where one body has several faults.
    """

    status = 500
    code = "internal"
    title = "Internal error"

    def __init__(self, detail: str, *, pointer: str | None = None, errors: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.errors = tuple(errors) or (((pointer, detail),) if pointer is not None else ())

    def problem(self) -> dict[str, Any]:
        """The error as an RFC 9457 problem object, with the stable `code` beside its members."""
        body: dict[str, Any] = {
            "type": f"urn:lethe:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            body["errors"] = [{"pointer": pointer, "detail": detail} for pointer, detail in self.errors]
        return body


class BadRequest(LetheError):
    status, code, title = 400, "bad_request", "Bad request"


class MalformedBody(BadRequest):
    code, title = "malformed_body", "The body could not be read"


class UnsupportedMedia(BadRequest):
    status, code, title = 415, "unsupported_media_type", "Unsupported content type"


class Unauthorized(LetheError):
    status, code, title = 401, "unauthorized", "No valid API key"


class KeyExpired(Unauthorized):
    code, title = "key_expired", "The API key has expired"


class Forbidden(LetheError):
    status, code, title = 403, "forbidden", "The key lacks the role"


class PolicyForbids(Forbidden):
    code, title = "policy_forbids", "The policy does not allow it"


class NotFound(LetheError):
    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowed(LetheError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class Conflict(LetheError):
    status, code, title = 409, "conflict", "Conflict with the current state"


class ReportNotReady(Conflict):
    code, title = "report_not_ready", "The report does not exist yet"


class TooLate(Conflict):
    code, title = "too_late", "Too late for this action"


class NotWaiting(Conflict):
    code, title = "not_waiting", "Nothing waits for a reviewer"


class JobNotFailed(Conflict):
    code, title = "job_not_failed", "The job has not failed"


class NotReleasable(Conflict):
    code, title = "not_releasable", "The attempt cannot be released"


class CandidateUnusable(Conflict):
    code, title = "candidate_unusable", "The candidate is gone or changed"


class RequestsChanged(Conflict):
    code, title = "requests_changed", "The requests of the job have changed"


class Outdated(Conflict):
    code, title = "outdated", "The model has moved on"


class Gone(LetheError):
    status, code, title = 410, "gone", "No longer available"


class BodyTooLarge(LetheError):
    status, code, title = 413, "body_too_large", "The body is over the limit"


class Invalid(LetheError):
    status, code, title = 422, "invalid", "Invalid input"


class UnknownModel(Invalid):
    code, title = "unknown_model", "Unknown model"


class UnknownRegulation(Invalid):
    code, title = "unknown_regulation", "Unknown regulation"


class UnknownIdentifier(Invalid):
    code, title = "unknown_identifier_type", "Unknown identifier type"


class EmptySubject(Invalid):
    code, title = "empty_subject", "The subject has no identifiers"


class IdempotencyMismatch(Invalid):
    code, title = "idempotency_mismatch", "Idempotency-Key was used with another body"


class UnknownAttempt(Invalid):
    code, title = "unknown_attempt", "Unknown attempt"


class BadDataset(Invalid):
    code, title = "bad_dataset", "The dataset cannot be used"


class BadModel(Invalid):
    code, title = "bad_model", "The model directory cannot be used"


class BadRecipe(Invalid):
    code, title = "bad_recipe", "The recipe cannot be used"


class BadPolicy(Invalid):
    code, title = "bad_policy", "The policy cannot be used"


class BadParameters(Invalid):
    code, title = "bad_parameters", "The parameters cannot be used"


class Unavailable(LetheError):
    status, code, title = 503, "unavailable", "Temporarily unavailable"


class JobError(LetheError):
    """A job stage that cannot go on; stored as the job's cause of failure."""

    code, title = "job_failed", "The job failed"


class MethodRefused(JobError):
    """An exact method whose conditions do not hold: it is never run as a silent approximation."""

    code, title = "method_refused", "The method cannot be exact here"


class OutOfMemory(JobError):
    code, title = "out_of_memory", "The worker ran out of memory"


class DiskFull(JobError):
    status, code, title = 507, "disk_full", "No space left for the job's files"


class Cancelled(JobError):
    status, code, title = 499, "cancelled", "Cancelled"


class Unevaluable(JobError):
    """Scores that no check can be computed from; never a pass, and not a fail of the candidate either."""

    code, title = "unevaluable", "The candidate could not be evaluated"


class LeaseLost(JobError):
    code, title = "lease_lost", "Another worker holds the lease"
