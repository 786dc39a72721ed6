"""The task that sends one outbox message as a webhook; its failure never touches the request it speaks of."""

import structlog
from celery import shared_task

from service import queue
from service.database import clock, reading, transaction
from service.deletion.models import DeletionRequest
from service.errors import LetheError
from service.jobs import waiting
from service.notify import outbox, webhooks
from service.settings import get_settings

log = structlog.get_logger(__name__)


@shared_task(name=queue.TASK_DELIVER)
def deliver(message_id: str, tried: str) -> None:
    """Post the request's present status to its callback; keep the row for another try unless that was the last.

    That a job waits for a reviewer is told while it does: one that has been decided meanwhile is old news.
    `tried` is how many tries the message had when it was sent here; another copy of it is dropped.
    """
    with reading() as session:
        message = outbox.find(session, message_id)
        request = session.get(DeletionRequest, message.ref) if message else None
        waits = waiting.of_request(session, message.ref) if message and message.topic == outbox.WAITING else None
    most = get_settings().webhooks.max_attempts
    # A last try whose worker died has left the row.
    if message is None or request is None or not request.callback_url or message.attempts >= most or waits == []:
        _remove(message_id)
        return
    with transaction() as session:
        now = clock(session)
        attempt = outbox.begin_try(session, message_id, int(tried))
    if attempt is None:
        return
    body = webhooks.body_of(request.id, request.status, request.external_id, now, waits or ())
    try:
        webhooks.post(request.callback_url, message_id, body, now)
    except LetheError as error:
        log.warning("webhook.failed", request=request.id, attempt=attempt, reason=error.detail)
        if attempt < most:
            with transaction() as session:
                outbox.note_error(session, message_id, attempt, error.detail)
            return
    _remove(message_id)


def _remove(message_id: str) -> None:
    with transaction() as session:
        outbox.remove(session, message_id)
