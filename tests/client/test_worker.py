import threading
from types import ModuleType

import pytest

from client.reconcile import reconcile_once
from client.worker import celery_command, run_for_ever
from schemas.jobs import JobStatus
from tests.workers.conftest import TENANT, Bench, bench, settings
from tests.workers.test_defense import defense
from workers.context import Outcome

__all__ = ["bench", "defense", "settings"]


def test_once_takes_the_oldest_job_and_then_finds_nothing_more(
    bench: Bench, defense: ModuleType
) -> None:
    place = bench.running("succeed")
    assert defense.run_attempt(None, place) is Outcome.SUCCEEDED
    assert bench.job().status is JobStatus.SUCCEEDED
    assert defense.run_attempt(None, place) is None


def test_once_hands_the_job_back_when_it_is_asked_to_stop(
    bench: Bench, defense: ModuleType
) -> None:
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    assert defense.run_attempt(None, bench.running("work_until_asked"), stop) is Outcome.RELEASED
    assert bench.job().status is JobStatus.QUEUED


def test_gpu_jobs_get_a_fresh_process_each_and_webhooks_do_not() -> None:
    assert "--max-tasks-per-child" not in celery_command(["disp.gpu"])
    webhooks = celery_command(["disp.io"])
    assert webhooks[webhooks.index("-Q") + 1] == "disp.io" and "--max-tasks-per-child" in webhooks


@pytest.mark.parametrize(("queue", "jobs"), [("disp.gpu", True), ("disp.cpu", False)])
def test_without_a_broker_only_who_serves_the_gpu_queue_takes_jobs(
    monkeypatch: pytest.MonkeyPatch, defense: ModuleType, queue: str, jobs: bool
) -> None:
    ran = []
    monkeypatch.setattr("workers.runner.main", lambda *, with_jobs: ran.append(with_jobs))
    run_for_ever([queue])
    assert ran == [jobs]


@pytest.mark.parametrize(
    ("queues", "devices", "name"),
    [
        (["disp.gpu"], "", "gpu@%h"),
        (["disp.gpu"], "1", "gpu1@%h"),
        (["disp.gpu", "disp.io"], "0,1", "gpu-io0-1@%h"),
    ],
)
def test_nodes_of_one_machine_have_names_of_their_own(
    monkeypatch: pytest.MonkeyPatch, queues: list[str], devices: str, name: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    command = celery_command(queues)
    assert command[command.index("-n") + 1] == name


def test_one_round_of_repairs_requeues_what_a_dead_worker_held(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.store.claim("dead", lease_s=-1)
    settings = bench.workplace.settings
    monkeypatch.setenv("DISP_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("DISP_ARTIFACTS_URL", settings.artifacts_url)
    found = reconcile_once()
    assert found.requeued == (bench.job_id,)
    assert bench.store.get_job(TENANT, bench.job_id).status is JobStatus.QUEUED
    assert reconcile_once().requeued == ()
