"""The task that sends one outbox message as a webhook; its failure never touches the request it speaks of."""

import structlog
from celery import shared_task

from service import queue
from service.database import clock, reading, transaction
from service.deletion.models import DeletionRequest
from service.errors import LetheError
from service.notify import outbox, webhooks
from service.settings import get_settings

log = structlog.get_logger(__name__)


@shared_task(name=queue.TASK_DELIVER)
def deliver(message_id: str) -> None:
    """Post the request's present status to its callback; keep the row for another try unless that was the last."""
    with reading() as session:
        message = outbox.find(session, message_id)
        request = session.get(DeletionRequest, message.ref) if message else None
        now = clock(session)
    if message is None or request is None or not request.callback_url:
        _remove(message_id)
        return
    body = webhooks.body_of(request.id, request.status, request.external_id, now)
    try:
        webhooks.post(request.callback_url, message_id, body, now)
    except LetheError as error:
        log.warning("webhook.failed", request=request.id, attempt=message.attempts, reason=error.detail)
        if message.attempts < get_settings().webhooks.max_attempts:
            with transaction() as session:
                outbox.note_error(session, message_id, error.detail)
            return
    _remove(message_id)


def _remove(message_id: str) -> None:
    with transaction() as session:
        outbox.remove(session, message_id)
