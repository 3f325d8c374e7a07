"""Pausing, resuming, retrying and deleting; `test_lifecycle` tries them in every order."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from schemas.files import FilePurpose
from schemas.jobs import JobError, JobStatus, StageName, StepStatus
from schemas.requests import DefenseJobCreate
from storage.errors import (
    FileInUse,
    FileIsResult,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    JobStatusConflict,
    NotFound,
    QuotaExceeded,
    UnknownFile,
)
from storage.ids import new_id
from storage.interfaces import Directive, FileDraft, Idempotency, StepUpdate
from tests.storage.world import MODEL, STRANGER, TENANT, add_job, add_training_file, expire_leases

LEASE_S = 60.0
ERROR = JobError(code="engine_error", message="it broke")


def status_of(store, job_id):
    return store.get_job(TENANT, job_id).status


def result_file():
    return FileDraft(
        id=new_id("file"),
        filename="purified_dataset.zip",
        purpose=FilePurpose.RESULTS,
        key="somewhere",
        bytes=1,
        sha256="cd" * 32,
    )


def failed_job(store, **fields):
    job_id = add_job(store, **fields)
    store.fail(store.claim("w", lease_s=LEASE_S, job_id=job_id), ERROR)
    return job_id


def test_a_paused_queued_job_is_nobodys_until_it_is_resumed(store):
    job_id = add_job(store)
    for _ in range(2):
        assert store.request_pause(TENANT, job_id).status is JobStatus.PAUSED
    assert store.claim("w", lease_s=LEASE_S) is None
    assert store.claim("w", lease_s=LEASE_S, job_id=job_id) is None
    assert store.reconcile(hint_after_s=0.0).hints == ()
    for _ in range(2):
        assert store.resume_job(TENANT, job_id).status is JobStatus.QUEUED
    assert store.reconcile().hints == (job_id,)
    assert store.claim("w", lease_s=LEASE_S).attempt == 1


def test_a_running_job_pauses_when_its_worker_has_saved_and_keeps_its_finished_steps(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    finished = StepUpdate(StageName.INGEST, StepStatus.SUCCEEDED, done=4, total=4)
    working = StepUpdate(StageName.FINE_TUNE, StepStatus.RUNNING, done=1, total=8)
    store.record(claim, steps=[finished, working])
    for _ in range(2):
        assert store.request_pause(TENANT, job_id).status is JobStatus.PAUSING
    store.record(claim, status=JobStatus.RUNNING)
    assert store.heartbeat(claim, lease_s=LEASE_S) is Directive.PAUSE
    store.release(claim)
    job = store.get_job(TENANT, job_id)
    assert (job.status, job.finished_at) == (JobStatus.PAUSED, None)
    assert [step.status for step in job.steps[:2]] == [StepStatus.SUCCEEDED, StepStatus.PENDING]
    assert [step.percent for step in job.steps[:3]] == [100.0, 12.5, None]
    assert store.heartbeat(claim, lease_s=LEASE_S) is Directive.LOST


@pytest.mark.parametrize("detected_by", ["reconciler", "next claim", "same owner"])
def test_a_job_whose_worker_is_lost_while_pausing_is_paused_and_has_lost_nothing(
    store, detected_by
):
    job_id = add_job(store)
    for _ in range(5):
        store.claim("w", lease_s=LEASE_S)
        store.request_pause(TENANT, job_id)
        if detected_by == "reconciler":
            expire_leases(store)
            assert store.reconcile().paused == (job_id,)
        elif detected_by == "next claim":
            expire_leases(store)
            assert store.claim("x", lease_s=LEASE_S) is None
        else:
            assert store.claim("w", lease_s=LEASE_S) is None
        assert status_of(store, job_id) is JobStatus.PAUSED
        store.resume_job(TENANT, job_id)
    assert store.claim("w", lease_s=LEASE_S).attempt == 6


def test_a_pause_that_is_withdrawn_in_time_lets_the_worker_go_on(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    store.request_pause(TENANT, job_id)
    assert store.resume_job(TENANT, job_id).status is JobStatus.RUNNING
    assert store.heartbeat(claim, lease_s=LEASE_S) is Directive.CONTINUE


def test_a_pause_that_is_withdrawn_too_late_queues_the_job_again(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    store.request_pause(TENANT, job_id)
    assert store.heartbeat(claim, lease_s=LEASE_S) is Directive.PAUSE
    store.resume_job(TENANT, job_id)
    store.release(claim)
    assert status_of(store, job_id) is JobStatus.QUEUED


def test_a_cancellation_outranks_a_pause(store):
    pausing, paused = add_job(store), add_job(store)
    claim = store.claim("w", lease_s=LEASE_S, job_id=pausing)
    store.request_pause(TENANT, pausing)
    store.request_pause(TENANT, paused)
    assert store.request_cancel(TENANT, paused).status is JobStatus.CANCELLED
    assert store.request_cancel(TENANT, pausing).status is JobStatus.CANCELLING
    assert store.heartbeat(claim, lease_s=LEASE_S) is Directive.CANCEL
    for ask in (store.request_pause, store.resume_job):
        with pytest.raises(JobStatusConflict):
            ask(TENANT, pausing)
    store.release(claim)
    assert status_of(store, pausing) is JobStatus.CANCELLED


def test_a_job_that_finishes_before_its_pause_reaches_it_has_succeeded(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    store.request_pause(TENANT, job_id)
    store.succeed(claim, "m", {})
    assert status_of(store, job_id) is JobStatus.SUCCEEDED
    for ask in (store.request_pause, store.resume_job):
        with pytest.raises(JobStatusConflict):
            ask(TENANT, job_id)


def test_rivals_that_cancel_pause_and_resume_leave_one_consistent_job(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    asks = [store.request_pause, store.resume_job, store.request_cancel] * 4

    def attempt(ask):
        try:
            ask(TENANT, job_id)
        except JobStatusConflict:
            return

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(attempt, asks))
    assert status_of(store, job_id) is JobStatus.CANCELLING
    store.release(claim)
    assert status_of(store, job_id) is JobStatus.CANCELLED
    events = store.list_events(TENANT, job_id).data
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


def test_a_retry_is_a_new_job_with_the_old_request(store):
    old = store.get_job(TENANT, failed_job(store, seed=7, metadata={"team": "red"}))
    again = store.retry_job(TENANT, old.id).job
    assert (again.status, again.retry_of, again.attempt) == (JobStatus.QUEUED, old.id, 0)
    for field in DefenseJobCreate.model_fields:
        assert getattr(again, field) == getattr(old, field)
    assert store.get_job(TENANT, old.id) == old
    assert [job.id for job in store.list_jobs(TENANT, metadata={"team": "red"}).data] == [
        again.id,
        old.id,
    ]


def test_only_a_job_without_success_is_retried_and_only_while_its_files_are_there(
    store, training_file
):
    with pytest.raises(JobStatusConflict):
        store.retry_job(TENANT, add_job(store))
    store.succeed(store.claim("w", lease_s=LEASE_S), "m", {})
    job_id = failed_job(store, training_file=training_file)
    store.delete_file(TENANT, training_file)
    with pytest.raises(UnknownFile):
        store.retry_job(TENANT, job_id)


def test_a_retry_obeys_its_idempotency_key(store):
    first, second = failed_job(store), failed_job(store)
    key = Idempotency("k", "sha of the first")
    made = store.retry_job(TENANT, first, key)
    assert store.retry_job(TENANT, first, key).job == made.job
    with pytest.raises(IdempotencyKeyReused):
        store.retry_job(TENANT, second, Idempotency("k", "sha of the second"))


def test_a_deleted_job_is_gone_with_its_history_and_its_result_files(store, database):
    job_id = add_job(store, metadata={"a": "b"})
    file = result_file()
    store.succeed(store.claim("w", lease_s=LEASE_S), "m", {"samples": {"rewritten": 1}}, [file])
    assert store.get_job(TENANT, job_id).result_files == [file.id]
    with pytest.raises(FileIsResult):
        store.delete_file(TENANT, file.id)
    reader = add_job(store, training_file=file.id)
    with pytest.raises(FileInUse):
        store.delete_job(TENANT, job_id)
    store.request_cancel(TENANT, reader)
    with pytest.raises(NotFound):
        store.delete_job(STRANGER, job_id)
    store.delete_job(TENANT, job_id)
    with pytest.raises(NotFound):
        store.get_file(TENANT, file.id)
    with store._engine.begin() as connection:
        for table in ("jobs", "steps", "events", "metrics", "outbox", "job_metadata"):
            column = "id" if table == "jobs" else "job_id"
            query = f"SELECT count(*) FROM {table} WHERE {column} = '{job_id}'"
            assert connection.exec_driver_sql(query).scalar() == 0, table


@pytest.mark.parametrize("pause", [False, True])
def test_an_unfinished_job_is_not_deleted(store, pause):
    job_id = add_job(store)
    if pause:
        store.request_pause(TENANT, job_id)
    with pytest.raises(JobStatusConflict):
        store.delete_job(TENANT, job_id)


def test_labels_find_jobs_and_all_of_them_must_fit(store):
    red = add_job(store, metadata={"team": "red", "run": "1"})
    add_job(store, metadata={"team": "red", "run": "2"})
    add_job(store, STRANGER, metadata={"team": "red", "run": "1"})

    def found(**labels):
        return [job.id for job in store.list_jobs(TENANT, metadata=labels).data]

    assert len(found(team="red")) == 2
    assert found(team="red", run="1") == [red]
    assert found(team="red", run="3") == found(nothing="") == []


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_before_another_ends_where_that_begins(store, order):
    jobs = [add_job(store) for _ in range(5)]
    listed = jobs if order == "asc" else jobs[::-1]

    def page(**cursor):
        found = store.list_jobs(TENANT, limit=2, order=order, **cursor)
        return [job.id for job in found.data], found.has_more

    assert page(before=listed[3]) == (listed[1:3], True)
    assert page(before=listed[1]) == (listed[:1], False)
    assert page(after=listed[1], before=listed[3]) == ([listed[2]], False)


def test_worker_seconds_add_up_over_the_attempts_and_leave_pauses_out(store):
    job_id = add_job(store)
    assert store.get_job(TENANT, job_id).usage is None
    for back_s in (10, 20):
        claim = store.claim("w", lease_s=LEASE_S)
        with store._engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE jobs SET claimed_at = claimed_at - {back_s}")
        store.request_pause(TENANT, job_id)
        store.release(claim)
        store.resume_job(TENANT, job_id)
    assert store.get_job(TENANT, job_id).usage.worker_seconds == pytest.approx(30, abs=2)


def test_a_lost_attempt_costs_no_more_than_its_lease(store):
    job_id = add_job(store)
    store.claim("w", lease_s=LEASE_S)
    with store._engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE jobs SET claimed_at = claimed_at - 500, lease_until = lease_until - 500"
        )
    store.reconcile()
    assert store.get_job(TENANT, job_id).usage.worker_seconds == pytest.approx(LEASE_S, abs=1)


def test_rivals_for_the_last_place_of_a_quota_do_not_both_get_it(store, training_file):
    request = DefenseJobCreate(model=MODEL, training_file=training_file)

    def attempt(_):
        try:
            return store.create_job(TENANT, request, max_unfinished=3)
        except QuotaExceeded:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [created for created in pool.map(attempt, range(8)) if created]
    assert len(made) == 3
    store.request_cancel(TENANT, made[0].job.id)
    assert attempt(None) is not None
    theirs = DefenseJobCreate(model=MODEL, training_file=add_training_file(store, STRANGER))
    assert store.create_job(STRANGER, theirs, max_unfinished=1)


def test_a_quota_counts_paused_jobs_and_holds_for_retries(store):
    job_id = failed_job(store)
    store.request_pause(TENANT, add_job(store))
    with pytest.raises(QuotaExceeded):
        store.retry_job(TENANT, job_id, max_unfinished=1)


def test_a_key_is_new_again_after_a_day(store, training_file):
    request = DefenseJobCreate(model=MODEL, training_file=training_file)
    create = partial(store.create_job, TENANT, request)
    first = create(Idempotency("k", "sha"))
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE idempotency_keys SET created_at = created_at - 86401")
    again = create(Idempotency("k", "another sha"))
    assert not again.replayed and again.job.id != first.job.id
    assert create(Idempotency("k", "another sha")).job == again.job


def test_a_rival_is_told_that_the_key_is_in_flight(store, training_file, database):
    if database.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time, so no two transactions meet over a key")
    request = DefenseJobCreate(model=MODEL, training_file=training_file)
    from storage.sql.idempotency import advisory_number

    number = advisory_number("idempotency", TENANT, "k")
    with store._engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({number})")
        with pytest.raises(IdempotencyInFlight):
            store.create_job(TENANT, request, Idempotency("k", "sha"))
    assert not store.create_job(TENANT, request, Idempotency("k", "sha")).replayed
