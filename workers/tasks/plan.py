"""Stage plan: which methods to try, in which order, and why."""

import json
from pathlib import Path

from sqlalchemy import update

from service.audit import service as audit
from service.jobs import events, leases
from service.jobs.models import Job
from workers.tasks import materials
from workers.tasks.work import Work


def run(work: Work) -> None:
    """Store the ladder on the job: a pure function of the policy, the sizes and what the model brings along."""
    from workers.planning.ladder import plan_ladder

    scope = work.job.scope or {}
    recipe = materials.recipe_of(work)
    plan = plan_ladder(
        work.policy,
        task=work.model.task,
        forget_records=scope["records"],
        forget_subjects=scope["subjects"],
        data_records=scope["dataset_records"] - scope["tombstones"],
        has_recipe=recipe is not None,
        has_held_out=work.dataset.holdout_path is not None,
        train_seconds=training_seconds(Path(work.base.path)),
    ).model_dump(mode="json")
    with work.fenced() as session:
        session.execute(update(Job).where(Job.id == work.job.id).values(plan=plan))
        data = {"methods": [rung["method"] for rung in plan["rungs"]], "policy": work.job.policy_digest}
        audit.record(session, "job.planned", actor="worker", ref=work.job.id, data=data)
        events.emit(session, work.job.id, "stage", stage="plan", status="done", why=plan["why"], **data)
        leases.move_on(session, work.job.id, "unlearn")


def training_seconds(version_dir: Path) -> float | None:
    """Seconds that training took, by the version's training record."""
    path = version_dir / "training_record.json"
    if not path.is_file():
        return None
    seconds = json.loads(path.read_text("utf-8")).get("seconds")
    return float(seconds) if seconds else None
