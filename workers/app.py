"""The Celery application: a message is only a hint that a job or a file may be claimed.

The SQL lease owns redelivery, so messages are acknowledged early and never prefetched; the
broker's visibility timeout can then duplicate nothing. `disp worker` runs a node: one per GPU.
"""

from typing import Any

from celery import Celery
from celery.signals import (
    setup_logging,
    worker_init,
    worker_process_init,
    worker_ready,
    worker_shutting_down,
)

from schemas.tasks import KEY_PREFIX, QUEUE, QUEUE_TYPE
from storage.telemetry.logs import configure_logs
from storage.telemetry.metrics import serve_worker_metrics
from storage.telemetry.traces import configure_traces
from workers.settings import worker_settings

VISIBILITY_TIMEOUT_S = 43200
TASKS = ["workers.tasks.defense", "workers.tasks.files", "workers.tasks.webhooks"]

app = Celery("disp", broker=worker_settings().broker_url, include=TASKS)
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    result_backend=None,
    task_acks_late=False,
    worker_disable_prefetch=True,
    worker_prefetch_multiplier=1,
    worker_concurrency=1,
    worker_pool="prefork",
    worker_pool_start_method="spawn",  # CUDA does not survive a fork
    worker_max_tasks_per_child=1,
    worker_proc_alive_timeout=60.0,
    worker_soft_shutdown_timeout=worker_settings().soft_shutdown_s,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "health_check_interval": 25,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "global_keyprefix": KEY_PREFIX,
    },
    visibility_timeout=VISIBILITY_TIMEOUT_S,
    task_publish_retry_policy={"max_retries": 3, "interval_max": 1},
    task_default_queue=QUEUE,
    task_default_queue_type=QUEUE_TYPE,
    task_create_missing_queue_type=QUEUE_TYPE,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
)


@setup_logging.connect
def _configure_logs(**_: object) -> None:
    configure_logs()


@worker_init.connect
def _serve_metrics(**_: object) -> None:
    """In the node's main process: it outlives the children, which end with their jobs."""
    port = worker_settings().metrics_port
    if port is not None:
        serve_worker_metrics(port)


@worker_ready.connect
def _take_nothing_once_told_to_end(sender: Any, **_: object) -> None:
    """Celery stops the pool while a message may be on its way in, then asks for the pool's size.

    Given a limit it does not ask, and under a negative one the message stays in the queue.
    """

    def take_nothing(**_: object) -> None:
        sender.controller.max_concurrency = -1

    worker_shutting_down.connect(take_nothing, weak=False)


@worker_process_init.connect
def _configure_traces(**_: object) -> None:
    """In each child: an exporter's thread would not survive the way there."""
    configure_traces("disp-worker")
