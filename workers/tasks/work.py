"""What every stage starts from: the claimed job, its rows, its folder, and fenced writes."""

import json
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from service.database import reading
from service.datasets.models import Dataset
from service.errors import JobError
from service.jobs import leases, service
from service.jobs.models import Attempt, Job
from service.registry.files import digest_file
from service.registry.models import Model, Version
from service.settings import get_settings
from service.verification.policy import Policy

if TYPE_CHECKING:
    from workers.modeling.problem import Progress

_PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class Work:
    """A claim and what hangs on it. Rows are read once; writes go through `fenced`."""

    claim: leases.Claim

    def fenced(self) -> AbstractContextManager[Session]:
        """A transaction that takes effect only while this worker holds the job."""
        return leases.fenced(self.claim.job_id, self.claim.fence)

    @property
    def directory(self) -> Path:
        """Files of the job: forget set, candidates, score tables. Destroyed when the job has ended."""
        return get_settings().home / "jobs" / self.claim.job_id

    @property
    def scratch(self) -> Path:
        """A folder that only this claim writes to; what it proposes is renamed out of it."""
        path = self.directory / f"fence-{self.claim.fence}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def forget_ids(self) -> list[str]:
        """Record ids to forget, as resolve stored them. Raises JobError when the file is missing or changed."""
        scope = self.job.scope or {}
        path = self.directory / str(scope.get("forget_file"))
        if not path.is_file() or digest_file(path) != scope.get("forget_digest"):
            raise JobError("the forget set of the job is missing or changed; retry the request")
        ids: list[str] = json.loads(path.read_bytes())
        return ids

    @cached_property
    def job(self) -> Job:
        """The job as it was when the stage began."""
        with reading() as session:
            return service.get_job(session, self.claim.job_id)

    @cached_property
    def model(self) -> Model:
        """The served model."""
        with reading() as session:
            return session.get_one(Model, self.job.model_id)

    @cached_property
    def dataset(self) -> Dataset:
        """The data it was trained on: the one in which the job resolved its records, whatever is registered since."""
        chosen = (self.job.scope or {}).get("dataset_id") or self.model.dataset_id
        with reading() as session:
            return session.get_one(Dataset, chosen)

    @cached_property
    def base(self) -> Version:
        """The version that was serving when the job was made: every attempt starts from it."""
        with reading() as session:
            if self.job.base_version_id is None:
                raise JobError(f"model {self.job.model_name} serves no version")
            return session.get_one(Version, self.job.base_version_id)

    @cached_property
    def policy(self) -> Policy:
        """The policy fixed when the job was made."""
        return Policy.stored(self.job.policy)

    def attempts(self) -> list[Attempt]:
        """Attempts of the present run, oldest first; those before a restart are left out."""
        with reading() as session:
            rows = service.attempts_of(session, self.claim.job_id)
        return [row for row in rows if row.state != "superseded"]

    def progress_reporter(self) -> "ProgressReporter":
        """A callback for methods and scoring."""
        return ProgressReporter(self.claim)


class ProgressReporter:
    """Stores progress at most twice a second; the first report goes out at once."""

    def __init__(self, claim: leases.Claim) -> None:
        self._claim = claim
        self._last = 0.0

    def __call__(self, progress: "Progress") -> None:
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS:
            return
        self._last = now
        claim = self._claim
        service.report_progress(
            claim.job_id, claim.fence, claim.stage, progress.fraction, progress.eta_seconds, progress.metrics
        )
