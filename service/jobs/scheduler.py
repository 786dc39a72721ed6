"""The scheduler: one small loop that seals audit events, starts due jobs, sends and re-sends messages, and sweeps.

Everything it does is safe to do twice, so several may run; it holds no state. It is what repairs every gap: a worker
that died, a message that was lost, a process killed between a commit and its message.
"""

import threading
import time
from collections.abc import Callable

import structlog
from kombu.exceptions import KombuError
from sqlalchemy.exc import SQLAlchemyError

from service import queue
from service.audit import sequencer
from service.database import clock, transaction
from service.deletion import repository
from service.jobs import dispatch, service
from service.jobs.stages import queue_of
from service.notify import outbox
from service.references import messages as references
from service.registry import pools
from service.registry import service as registry
from service.settings import get_settings

log = structlog.get_logger(__name__)

SWEEP_EVERY_SECONDS = 30.0


def tick() -> None:
    """One round: seal, dispatch, send."""
    sequencer.seal()
    dispatch.dispatch()
    for job_id, stage in service.take_messages():
        queue.send(queue.TASK_ADVANCE, job_id, stage, queue=queue_of(stage))
    for task, row_id in references.take_messages(dispatch.what_jobs_need):
        queue.send(task, row_id, queue=queue.QUEUE_GPU)
    with transaction() as session:
        messages = outbox.take_due(session)
        webhooks = [(message.id, str(message.attempts)) for message in messages if message.topic in outbox.CALLBACKS]
        for message in messages:
            if message.topic == outbox.REQUEST_ACCEPTED:
                outbox.remove(session, message.id)  # it woke this round; the request's own row says the rest
    for message_id, tried in webhooks:
        queue.send(queue.TASK_DELIVER, message_id, tried, queue=queue.QUEUE_NOTIFY)


def sweep() -> None:
    """Destroy artefacts and versions whose date has come, and forget answers to old idempotency keys."""
    with transaction() as session:
        now = clock(session)
        repository.purge_keys(session, now)
    registry.sweep_destroyed(now)
    with transaction() as session:
        pools.note_destroyed(session)


def run(stop: threading.Event, heartbeat: Callable[[], None] = lambda: None) -> None:
    """Tick until `stop` is set. An unreachable database or broker is logged once per outage and tried again."""
    pause, next_sweep, failing = get_settings().jobs.tick_seconds, 0.0, False
    while not stop.is_set():
        try:
            tick()
            if time.monotonic() >= next_sweep:
                sweep()
                next_sweep = time.monotonic() + SWEEP_EVERY_SECONDS
            heartbeat()
            failing = False
        except (SQLAlchemyError, KombuError, OSError) as error:
            if not failing:
                log.warning("scheduler.waiting", reason=type(error).__name__)
            failing = True
            stop.wait(min(2.0, 8 * pause))
        stop.wait(pause)
