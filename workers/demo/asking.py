"""Deletion requests of the demo: posted, followed and fetched over the service's HTTP API like anybody's."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from service.cli.stack import Stack
from service.errors import JobError, Unavailable
from workers.demo.screen import Screen

_POLL_SECONDS = 0.6
_LONGEST_SECONDS = 600.0
_NAMES = {
    "resolve": "finding the records",
    "plan": "planning",
    "unlearn": "computing",
    "verify": "measuring",
    "publish": "publishing",
    "attest": "writing the report",
    "notify": "writing the report",
}


@dataclass
class Asked:
    """One deletion request: what is asked, and what became of it."""

    title: str
    model: str
    kind: str
    values: Sequence[str]
    view: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def id(self) -> str:
        return str(self.view["id"])

    @property
    def target(self) -> dict[str, Any]:
        """The request's one target."""
        found: dict[str, Any] = self.view["targets"][0]
        return found


class Service:
    """The API of a running stack."""

    def __init__(self, stack: Stack) -> None:
        headers = {"authorization": f"Bearer {stack.admin_key}"}
        self._stack = stack
        self._client = httpx.Client(base_url=stack.url, headers=headers, timeout=60)

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    def get(self, path: str) -> httpx.Response:
        """GET. Raises Unavailable for an error."""
        answer = self._client.get(path)
        if not answer.is_success:
            raise Unavailable(f"GET {path} answered {answer.status_code}: {answer.text[:300]}")
        return answer

    def post(self, asked: Asked) -> None:
        """POST one request with all its identifiers. Raises Unavailable when it is not accepted."""
        identifiers = [{"type": asked.kind, "value": value} for value in asked.values]
        body = {"regulation": "gdpr", "subject": {"identifiers": identifiers}, "models": [asked.model]}
        answer = self._client.post("/v1/deletion-requests", json=body)
        if answer.status_code != 202:
            raise Unavailable(f"the request was answered {answer.status_code}: {answer.text[:300]}")
        asked.view = answer.json()

    def follow(self, wave: Sequence[Asked], screen: Screen) -> None:
        """Draw their progress until all have completed. Raises JobError when one of them does not."""
        started, open_ = time.monotonic(), list(wave)
        with screen.bars([asked.model for asked in wave]) as bars:
            while open_:
                for asked in list(open_):
                    asked.view = self.get(f"/v1/deletion-requests/{asked.id}").json()
                    bars.update(asked.model, asked.view["progress"], self._state(asked))
                    if _has_ended(asked):
                        asked.seconds = time.monotonic() - started
                        bars.finish(asked.model)
                        open_.remove(asked)
                if time.monotonic() - started > _LONGEST_SECONDS:
                    raise JobError(f"request {open_[0].id} has not completed after {_LONGEST_SECONDS:.0f} s")
                self._stack.mend()
                time.sleep(_POLL_SECONDS)

    def _state(self, asked: Asked) -> str:
        """What the job does now, in a few words."""
        job_id = asked.target["job_id"]
        if asked.view["status"] == "completed":
            return "completed"
        if job_id is None:
            return "waiting for the batch to close"
        attempts = self.get(f"/v1/jobs/{job_id}").json()["attempts"]
        stage = _NAMES[asked.view["stage"] or "resolve"]
        if not attempts or stage not in ("computing", "measuring"):
            return stage
        judged = f"{len(attempts) - 1} judged, " if len(attempts) > 1 else ""
        return f"{judged}{stage} {attempts[-1]['method']}"

    def fetch_evidence(self, asked: Asked, folder: Path) -> None:
        """Keep report and bundle of a completed request below `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        base = f"/v1/deletion-requests/{asked.id}/report"
        for form, path in (("json", f"{base}.json"), ("pdf", f"{base}.pdf"), ("zip", f"{base}/bundle")):
            asked.files[form] = folder / f"{asked.model}-{asked.title.replace(' ', '-')}.{form}"
            asked.files[form].write_bytes(self.get(path).content)
        asked.report = self.get(f"{base}.json").json()


def _has_ended(asked: Asked) -> bool:
    status = asked.view["status"]
    if status in ("failed", "rejected", "cancelled"):
        raise JobError(f"request {asked.id} ended as {status}: {asked.view.get('reason') or 'see its job'}")
    return bool(status == "completed")


def attempts_told(asked: Asked) -> list[str]:
    """A line per attempt: method and verdict."""
    return [f"{attempt['method']}: {_verdict(attempt)}" for attempt in asked.report["attempts"]]


def _verdict(attempt: dict[str, Any]) -> str:
    if attempt["verdict"] is None:
        return f"{attempt['state']} ({attempt['error']})"
    return f"{attempt['verdict']}{', by procedure' if attempt['basis'] == 'procedure' else ''}"


def membership_told(asked: Asked) -> list[str]:
    """A line per attempt: what the membership attack found, and what that meant for the verdict."""
    told = []
    for attempt in asked.report["attempts"]:
        published = asked.report["verification"] if attempt["state"] == "passed" else None
        evaluation = attempt["verification"] or published or {}
        check = next((each for each in evaluation.get("checks", []) if each["id"] == "membership_auc"), None)
        if check is None or check["estimate"] is None:
            continue
        found = f"{attempt['method']}: membership AUC {check['estimate']:.2f}"
        if check["margin"] is None:
            told.append(f"{found}; {check['n']} records are too few to judge by it: {_verdict(attempt)}")
            continue
        low, high = check["ci"]
        if attempt["basis"] == "procedure":
            told.append(f"{found}, interval {low:.2f} to {high:.2f}, told but not what decides: {_verdict(attempt)}")
            continue
        around = f"{0.5 - check['margin']:.2f} to {0.5 + check['margin']:.2f}"
        failed = [each["id"] for each in evaluation["checks"] if (each["role"], each["verdict"]) == ("gate", "fail")]
        why = f" (failed: {', '.join(failed)})" if failed else ""
        told.append(f"{found}, interval {low:.2f} to {high:.2f}, has to lie in {around}: {_verdict(attempt)}{why}")
    return told


def cost(asked: Asked) -> str:
    """Seconds of computing, all attempts together."""
    return f"{sum(attempt['seconds'] or 0.0 for attempt in asked.report['attempts']):.1f} s"
