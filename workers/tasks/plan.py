"""Stage plan: which methods to try, in which order, and why."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import update

from service.audit import service as audit
from service.catalogue.precisions import check_precision
from service.database import clock, reading
from service.deletion import lifecycle
from service.jobs import events, leases, service
from service.jobs.models import Job
from workers.tasks import materials
from workers.tasks.work import Work

if TYPE_CHECKING:
    from workers.planning.choice import Past
    from workers.planning.ladder import Situation


def run(work: Work) -> None:
    """Store the ladder on the job: a pure function of the policy, the sizes and what the model brings along."""
    from workers.planning.ladder import plan_ladder

    plan = plan_ladder(work.policy, situation_of(work)).model_dump(mode="json")
    with work.fenced() as session:
        session.execute(update(Job).where(Job.id == work.job.id).values(plan=plan))
        data = {"methods": [rung["method"] for rung in plan["rungs"]], "policy": work.job.policy_digest}
        audit.record(session, "job.planned", actor="worker", ref=work.job.id, data=data)
        events.emit(session, work.job.id, "stage", stage="plan", status="done", why=plan["why"], **data)
        leases.move_on(session, work.job.id, "unlearn")


def situation_of(work: Work) -> "Situation":
    """What the ladder depends on, from rows and from what the training recorded; no tensors."""
    from workers.lineage.reserve import reserve_of
    from workers.planning.costs import exact_options
    from workers.planning.ladder import Situation
    from workers.planning.qualifying import unqualified

    scope, base = work.job.scope or {}, Path(work.base.path)
    record = training_facts(base)
    return Situation(
        task=work.model.task,
        forget_records=scope["records"],
        forget_subjects=scope["subjects"],
        data_records=scope["dataset_records"] - scope["tombstones"],
        has_held_out=work.dataset.holdout_path is not None or bool(reserve_of(base)),
        exact=exact_options(base, materials.recipe_of(work), work.forget_ids()),
        train_seconds=record.get("seconds"),
        seconds_left=_seconds_left(work),
        edits=record.get("edits", 0),
        edited_records=record.get("edited_records", 0),
        unqualified=unqualified(
            work.policy,
            materials.qualifications_of(),
            materials.use_of(work),
            check_precision(work.model.serve_precision),
        ),
        alarm=_alarm(work),
        has_references=materials.method_references_of(work) is not None and not _as_classes(work),
        past=_past(work),
    )


def _as_classes(work: Work) -> bool:
    """Whether the forgotten records leave as whole classes. Asked only of a model with a pool: it reads the data."""
    from workers.planning.choice import leave_as_classes

    records = materials.training_records(work)
    return "label" in records.roles and leave_as_classes(records.column("label"), records.rows_of(work.forget_ids()))


def _past(work: Work) -> "dict[str, Past]":
    """How methods did in earlier jobs of the model."""
    from service.jobs.history import tried_by
    from workers.planning.choice import Past

    with reading() as session:
        return {name: Past(**vars(found)) for name, found in tried_by(session, work.model).items()}


def _alarm(work: Work) -> float | None:
    """The greatest e-value of the wager over publications since the line was last exact, where it is an alarm."""
    from service.registry.sequence import wager_of

    with reading() as session:
        wager = wager_of(session, work.base)
    return wager.highest if wager.alarm(work.policy.verification.alpha) else None


def _seconds_left(work: Work) -> float | None:
    """Until the earliest deadline of the job's requests."""
    with reading() as session:
        due = lifecycle.earliest_due(session, service.requests_of(session, work.job.id))
        return (due - clock(session)).total_seconds() if due is not None else None


def training_facts(version_dir: Path) -> dict[str, Any]:
    """The version's training record as plain JSON; empty where it has none."""
    path = version_dir / "training_record.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
