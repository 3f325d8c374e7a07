from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import pytest
from celery.signals import worker_ready, worker_shutting_down
from celery.worker.consumer.tasks import Tasks
from kombu import Connection

from schemas.jobs import JobStatus
from schemas.tasks import PURIFY, QUEUE
from tests.workers.conftest import Bench
from workers.context import Outcome
from workers.settings import WorkerSettings, worker_settings


@pytest.fixture
def defense(settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The task's module; the Celery application reads the environment when it is imported."""
    monkeypatch.setenv("DISP_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("DISP_ARTIFACTS_URL", settings.artifacts_url)
    worker_settings.cache_clear()
    import workers.tasks.defense as module

    yield module
    worker_settings.cache_clear()


def test_a_hint_makes_one_attempt_at_its_job(bench: Bench, defense: ModuleType) -> None:
    assert defense.run_attempt(bench.job_id, bench.running("succeed")) is Outcome.SUCCEEDED
    assert bench.job().status is JobStatus.SUCCEEDED


def test_a_stale_hint_does_nothing(bench: Bench, defense: ModuleType) -> None:
    bench.claim("somebody else")
    assert defense.run_attempt(bench.job_id, bench.running("succeed")) is None
    assert bench.job().attempt == 1


def test_celery_knows_the_task_by_the_name_that_the_gateway_sends(defense: ModuleType) -> None:
    assert defense.app.tasks[PURIFY].name == PURIFY
    assert defense.app.conf.task_default_queue == QUEUE


def test_celery_neither_holds_nor_repeats_what_the_lease_owns(defense: ModuleType) -> None:
    conf = defense.app.conf
    assert conf.task_acks_late is False and not defense.app.tasks[PURIFY].acks_late
    assert conf.worker_disable_prefetch is True and conf.worker_prefetch_multiplier == 1
    assert conf.result_backend is None and conf.task_ignore_result is True
    assert conf.worker_pool_start_method == "spawn" and conf.worker_max_tasks_per_child == 1
    assert conf.worker_cancel_long_running_tasks_on_connection_loss is False
    assert conf.task_default_queue_type == conf.task_create_missing_queue_type == "quorum"
    assert conf.accept_content == ["json"] and conf.task_time_limit is None


def test_a_node_told_to_end_takes_no_message_though_its_pool_is_gone(defense: ModuleType) -> None:
    with Connection("memory://") as connection:
        connection.transport.driver_type = "redis"
        pool = SimpleNamespace(num_processes=1)
        consumer = MagicMock(
            app=defense.app,
            connection=connection,
            controller=SimpleNamespace(max_concurrency=None),
            pool=pool,
            initial_prefetch_count=1,
        )
        Tasks(consumer).start(consumer)
        can_consume = consumer.task_consumer.channel.qos.can_consume
        worker_ready.send(sender=consumer)
        assert can_consume()
        worker_shutting_down.send(sender="node", sig="SIGTERM", how="Cold", exitcode=1)
        del pool.num_processes
        assert not can_consume()
