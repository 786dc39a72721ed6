"""Names of queues and tasks, and the one place that sends a message.

A message only says "look at job N, stage S": the database row is the truth (service/jobs/leases.py), so a message that
is lost, late or delivered twice changes nothing. Only the scheduler sends; the API process never needs the broker.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from service.settings import Settings, get_settings

if TYPE_CHECKING:
    from celery import Celery

TASK_ADVANCE = "lethe.advance"
TASK_DELIVER = "lethe.deliver"
TASK_PLAN_REFERENCES = "references.plan"
TASK_TRAIN_REFERENCE = "references.train"
TASK_REFERENCE_TABLES = "references.tables"
QUEUE_CPU = "cpu"
QUEUE_GPU = "gpu"
QUEUE_NOTIFY = "notify"
"""Callbacks: they wait for strangers' servers, so no worker that runs stages takes them."""

BROKER_URL_FILE = "run/broker.url"


def broker_url(settings: Settings | None = None) -> str:
    """LETHE_BROKER_URL, else the embedded server that `lethe up` announced under the home, else the file system."""
    settings = settings or get_settings()
    if settings.broker_url:
        return settings.broker_url
    announced = settings.home / BROKER_URL_FILE
    return announced.read_text().strip() if announced.is_file() else "filesystem://"


def celery_options(settings: Settings | None = None) -> dict[str, Any]:
    """Options shared by senders and workers; the reasons are in docs/architecture.md, "Long jobs on Celery"."""
    settings = settings or get_settings()
    url, limit = broker_url(settings), settings.jobs.time_limit_seconds
    options: dict[str, Any] = {
        "broker_url": url,
        "broker_connection_retry_on_startup": True,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_time_limit": limit,
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": 1,
        # No worker_max_tasks_per_child: replacing the child after each task delays the next message by up to five
        # seconds (measured), and heavy stages have a process of their own anyway.
        "worker_hijack_root_logger": False,
        "task_default_queue": QUEUE_CPU,
    }
    if url.startswith("amqp"):
        options |= {
            "task_default_queue_type": "quorum",
            "broker_transport_options": {"confirm_publish": True},
        }
    elif url.startswith("filesystem"):
        folder = settings.home / "run" / "messages"
        folder.mkdir(parents=True, exist_ok=True)
        options["broker_transport_options"] = {"data_folder_in": str(folder), "data_folder_out": str(folder)}
    else:
        # Redelivery must come after the hard limit, or a long task is started again while it still runs.
        options["broker_transport_options"] = {
            "visibility_timeout": limit + 3600,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
        }
    return options


@lru_cache(maxsize=1)
def sender() -> "Celery":
    """A Celery app that only sends."""
    from celery import Celery

    app = Celery("lethe-sender")
    app.conf.update(celery_options())
    return app


def send(task: str, *args: str, queue: str = QUEUE_CPU) -> None:
    """Publish a task by name with row ids as arguments; raises when the broker cannot be reached."""
    sender().send_task(task, args=list(args), queue=queue, retry=False)
