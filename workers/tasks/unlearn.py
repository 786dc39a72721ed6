"""Stage unlearn: one rung of the ladder, from the base weights, into a candidate directory."""

import shutil
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy import update

from service.audit import service as audit
from service.database import clock, new_id
from service.errors import JobError
from service.jobs import events, leases
from service.jobs.models import Attempt, Job
from service.verification.qualification import made_with_digest
from workers.tasks import materials
from workers.tasks.broken import record_broken
from workers.tasks.work import Work


def run(work: Work) -> None:
    """Run the next rung; an attempt that breaks (NaN, a method that does not fit) hands over to the rung after it."""
    from workers.planning.attempt import run_attempt

    materials.refuse_changed_data(work)
    rungs = (work.job.plan or {}).get("rungs", [])
    finished = [row for row in work.attempts() if row.state != "running"]
    if len(finished) >= len(rungs):
        raise JobError("no rung of the ladder passed the gate; see the attempts for what each one lacked")
    rung, number = rungs[len(finished)], _number(work)
    # The seed is the job's own: a retrain is a fresh draw, and a crash in between repeats the same one.
    seed = zlib.crc32(f"{work.job.id}/{number}".encode())
    attempt_id = _open_attempt(work, number, rung, seed)
    candidate = work.scratch / f"candidate-{number}"
    shutil.rmtree(candidate, ignore_errors=True)
    # A worker that takes the stage over goes on from what the one before kept.
    context = replace(materials.context_of(work, seed), scratch=work.scratch / f"edit-{number}")
    _note_device(work, str(context.device))
    try:
        result = run_attempt(
            rung["method"], rung["params"], materials.problem_of(work, rung["kind"]), context, candidate
        )
    except Exception as error:  # noqa: BLE001 - whatever broke this rung, the next one starts from the base weights
        record_broken(work, attempt_id, number, rung["method"], error)
        return
    values = asdict(result) | {"out": str(candidate), "made_with": materials.made_with(work)}
    _propose(work, attempt_id, number, candidate, values)


def _number(work: Work) -> int:
    running = [row for row in work.attempts() if row.state == "running"]
    if running:
        return running[-1].number  # a worker died in it: the same rung again
    from service.database import reading
    from service.jobs.service import attempts_of

    with reading() as session:
        return len(attempts_of(session, work.job.id)) + 1


def _open_attempt(work: Work, number: int, rung: dict[str, Any], seed: int) -> str:
    with work.fenced() as session:
        for row in work.attempts():
            if row.number == number:
                return row.id
        row = Attempt(
            id=new_id("att"),
            job_id=work.job.id,
            number=number,
            method=rung["method"],
            params=rung["params"],
            seed=seed,
            state="running",
            started_at=clock(session),
        )
        session.add(row)
        events.emit(session, work.job.id, "attempt", number=number, method=rung["method"], state="running")
        return row.id


def _note_device(work: Work, device: str) -> None:
    with work.fenced() as session:
        session.execute(update(Job).where(Job.id == work.job.id).values(device=device))


def _propose(work: Work, attempt_id: str, number: int, candidate: Path, result: dict[str, Any]) -> None:
    with work.fenced() as session:
        values = {"state": "proposed", "candidate_path": str(candidate), "candidate_digest": result["digest"]}
        session.execute(update(Attempt).where(Attempt.id == attempt_id).values(result=result, **values))
        data = {
            "number": number,
            "method": result["method"],
            "digest": result["digest"],
            "seconds": result["seconds"],
        }
        logged = data | {"made_with": made_with_digest(result["made_with"])}
        audit.record(session, "attempt.proposed", actor="worker", ref=work.job.id, data=logged)
        events.emit(session, work.job.id, "attempt", state="proposed", **data)
        leases.move_on(session, work.job.id, "verify")
