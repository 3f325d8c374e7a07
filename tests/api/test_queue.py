import json
import uuid
from dataclasses import replace

from kombu import Connection

from api.queue import CeleryQueue, PolledQueue, open_queue
from api.reconciler import Reconciler
from schemas.tasks import CPU_QUEUE, PURIFY, QUEUE, VALIDATE
from tests.api.walk import UPLOAD
from tests.api.world import zip_archive


class Recorded(PolledQueue):
    """Remembers its hints."""

    def __init__(self):
        self.hints = []

    def hint(self, job_id):
        self.hints.append(job_id)

    def hint_file(self, file_id):
        self.hints.append(file_id)


def test_without_a_broker_hints_go_nowhere():
    assert isinstance(open_queue(None), PolledQueue)
    open_queue(None).hint("job_1")


def test_a_hint_is_a_task_by_name_with_the_id_alone():
    broker = f"memory://{uuid.uuid4().hex}"
    queue = open_queue(broker)
    for hint, given, name, task in (
        (queue.hint, "job_1", QUEUE, PURIFY),
        (queue.hint_file, "file_1", CPU_QUEUE, VALIDATE),
    ):
        hint(given)
        with Connection(broker) as connection:
            message = connection.SimpleQueue(name).get(timeout=5)
        args, kwargs, _ = json.loads(message.body)
        assert (message.headers["task"], args, kwargs) == (task, [given], {})


def test_a_broker_that_is_down_costs_no_exception():
    CeleryQueue("redis://127.0.0.1:1/0").hint("job_1")


def test_a_job_is_hinted_at_after_its_commit_and_a_replay_is_not(api, monkeypatch):
    queue = Recorded()
    monkeypatch.setattr(type(api.gateway.queue), "hint", lambda _self, job_id: queue.hint(job_id))
    file_id = api.file_id()
    first = api.create({"Idempotency-Key": "k"}, training_file=file_id).json()["id"]
    api.create({"Idempotency-Key": "k"}, training_file=file_id)
    assert queue.hints == [first]


def test_a_dataset_is_hinted_at_after_its_commit_and_neither_a_replay_nor_a_checkpoint(
    api, monkeypatch
):
    queue, known = Recorded(), []

    def hint_file(_self, file_id):
        known.append(api.gateway.jobs.get_file("acme", file_id).status)
        queue.hint_file(file_id)

    monkeypatch.setattr(type(api.gateway.queue), "hint_file", hint_file)
    first = api.upload(**{"Idempotency-Key": "k"}).json()["id"]
    api.upload(**{"Idempotency-Key": "k"})
    api.checkpoint_id()
    content = zip_archive()
    upload = api.client.post("/v1/uploads", json=UPLOAD | {"bytes": len(content)}).json()["id"]
    api.client.put(f"/v1/uploads/{upload}/parts/1", content=content)
    second = api.client.post(f"/v1/uploads/{upload}/complete", json={}).json()["file"]
    assert (queue.hints, known) == ([first, second["id"]], ["uploaded", "uploaded"])
    assert second["status"] == "uploaded"


def test_the_reconciler_repeats_hints_of_files_that_readers_lost(api):
    file_id, queue = api.file_id(), Recorded()
    api.gateway.jobs.claim_file("r", lease_s=-1.0)
    gateway = replace(api.gateway, queue=queue)
    found = Reconciler(gateway, period_s=1, max_losses=3).reconcile()
    assert (queue.hints, found.files_returned) == ([file_id], (file_id,))


def test_the_reconciler_repeats_hints_of_jobs_that_workers_lost(api):
    job_id = api.job_id()
    jobs, queue = api.gateway.jobs, Recorded()
    jobs.claim("w", lease_s=0.0, job_id=job_id)
    gateway = replace(api.gateway, queue=queue)
    Reconciler(gateway, period_s=1, max_losses=3).reconcile()
    assert queue.hints == [job_id]
    assert jobs.get_job("acme", job_id).status == "queued"
