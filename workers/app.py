"""The Celery application: real worker processes, one task at a time, nothing heavy in the parent.

    celery -A workers.app:celery worker -Q cpu
    celery -A workers.app:celery worker -Q gpu
    celery -A workers.app:celery worker -Q notify --pool threads --concurrency 8

Torch is never imported here: a parent that has run one operation leaves a forked child hanging (OpenMP) or without
CUDA. Heavy stages run in a fresh process (workers/runner.py). Callbacks only wait for other servers: threads of one
process do, which needs no child and less memory.
"""

from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init

from service import database, queue
from service.logs import configure_logging
from service.settings import get_settings

celery = Celery("lethe", include=["workers.tasks.advance", "workers.tasks.deliver", "workers.tasks.references"])
celery.conf.update(queue.celery_options())


@setup_logging.connect
def _logging(**_: Any) -> None:
    configure_logging(get_settings().log_level)


@worker_process_init.connect
def _fresh_connections(**_: Any) -> None:
    # Sockets inherited through fork would be shared with the parent.
    database.dispose()
