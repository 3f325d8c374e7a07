import subprocess
import sys
import time

import pytest

from schemas.jobs import JobError, JobStatus, StageName, StepStatus
from storage.errors import LeaseLost
from storage.interfaces import Directive, EventDraft, MetricDraft, StepUpdate
from tests.storage.world import MODEL, STRANGER, TENANT, add_job, expire_leases

LEASE_S = 60.0
SUCCEEDED, RUNNING, PENDING = StepStatus.SUCCEEDED, StepStatus.RUNNING, StepStatus.PENDING


def status_of(store, job_id):
    return store.get_job(TENANT, job_id).status


def step_of(store, job_id, name):
    return next(step for step in store.get_job(TENANT, job_id).steps if step.name is name)


def test_the_oldest_job_is_claimed_first_and_each_once(store):
    first, second = add_job(store), add_job(store, STRANGER)
    claims = [store.claim(f"w{n}", lease_s=LEASE_S) for n in range(3)]
    assert [claim and (claim.job_id, claim.tenant, claim.attempt) for claim in claims] == [
        (first, TENANT, 1),
        (second, STRANGER, 1),
        None,
    ]


def test_a_claim_by_id_takes_that_job_and_no_other(store):
    add_job(store)
    wanted = add_job(store)
    assert store.claim("w", lease_s=LEASE_S, job_id=wanted).job_id == wanted
    assert store.claim("x", lease_s=LEASE_S, job_id=wanted) is None


def test_inputs_hold_request_model_and_files(store, training_file):
    add_job(store, training_file=training_file, seed=7)
    inputs = store.job_inputs(store.claim("w", lease_s=LEASE_S))
    assert (inputs.request.seed, inputs.model.path, inputs.model.id) == (7, "/models/tiny", MODEL)
    assert inputs.model.defaults == {"learning_rate": 1e-3}
    assert (inputs.training.id, inputs.training.sha256) == (training_file, "ab" * 32)
    assert inputs.triggered is None and inputs.clean is None


def test_a_heartbeat_keeps_a_lease_that_would_have_run_out(store):
    add_job(store)
    claim = store.claim("w", lease_s=0.4)
    for _ in range(4):
        time.sleep(0.2)
        assert store.heartbeat(claim, lease_s=0.4) is Directive.CONTINUE
        assert store.claim("thief", lease_s=LEASE_S) is None


def test_an_expired_lease_is_taken_over_and_the_old_owner_is_fenced_off(store):
    job_id = add_job(store)
    old = store.claim("w1", lease_s=LEASE_S)
    expire_leases(store)
    new = store.claim("w2", lease_s=LEASE_S)
    assert (new.job_id, new.attempt) == (job_id, 2)
    assert store.heartbeat(old, lease_s=LEASE_S) is Directive.LOST
    error = JobError(code="engine_error", message="late")
    for late in (
        lambda: store.record(old, events=[EventDraft("late")]),
        lambda: store.succeed(old, "manifest", {}),
        lambda: store.fail(old, error),
        lambda: store.mark_cancelled(old),
        lambda: store.release(old),
        lambda: store.job_inputs(old),
    ):
        with pytest.raises(LeaseLost):
            late()
    assert status_of(store, job_id) is JobStatus.VALIDATING_FILES
    assert "late" not in [e.message for e in store.list_events(TENANT, job_id).data]


def test_an_owner_that_claims_again_takes_its_own_job_back_at_once(store):
    job_id = add_job(store)
    first = store.claim("runner", lease_s=LEASE_S)
    again = store.claim("runner", lease_s=LEASE_S)
    assert (again.job_id, again.attempt) == (job_id, 2)
    assert store.heartbeat(first, lease_s=LEASE_S) is Directive.LOST


def test_a_record_is_one_transaction_or_nothing(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    store.record(
        claim,
        status=JobStatus.RUNNING,
        steps=[StepUpdate(StageName.SALIENCY, RUNNING, done=3, total=10, unit="samples")],
        events=[EventDraft("one"), EventDraft("two", level="warn")],
        metrics=[MetricDraft(StageName.FINE_TUNE, 10, {"loss": 0.5})],
    )
    job = store.get_job(TENANT, job_id)
    step = step_of(store, job_id, StageName.SALIENCY)
    assert (job.status, job.stage) == (JobStatus.RUNNING, StageName.SALIENCY)
    assert (step.status, step.done, step.total, step.unit) == (RUNNING, 3, 10, "samples")
    assert step.started_at is not None and step.attempt == 1
    assert [e.message for e in store.list_events(TENANT, job_id).data][-2:] == ["one", "two"]
    assert [m.values for m in store.list_metrics(TENANT, job_id).data] == [{"loss": 0.5}]


def test_a_training_step_that_is_repeated_replaces_its_metric(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    for loss in (0.5, 0.4):
        store.record(claim, metrics=[MetricDraft(StageName.FINE_TUNE, 10, {"loss": loss})])
    assert [m.values for m in store.list_metrics(TENANT, job_id).data] == [{"loss": 0.4}]


def test_a_worker_cannot_end_a_job_through_record(store):
    add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    with pytest.raises(ValueError, match="succeed, fail or mark_cancelled"):
        store.record(claim, status=JobStatus.SUCCEEDED)


def test_success_names_the_manifest_and_ends_the_lease(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    store.succeed(claim, "the/manifest.json", {"asr": 0.0})
    job = store.get_job(TENANT, job_id)
    assert (job.status, job.result) == (JobStatus.SUCCEEDED, {"asr": 0.0})
    assert job.finished_at >= job.started_at >= job.created_at
    assert store.published_manifest(TENANT, job_id) == "the/manifest.json"
    assert store.heartbeat(claim, lease_s=LEASE_S) is Directive.LOST


def test_failure_marks_the_running_step_failed_and_skips_the_rest(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    store.record(claim, steps=[StepUpdate(StageName.INGEST, RUNNING)])
    store.fail(claim, JobError(code="invalid_dataset", message="no json", param="/training_file"))
    job = store.get_job(TENANT, job_id)
    assert (job.status, job.error.code) == (JobStatus.FAILED, "invalid_dataset")
    assert [s.status for s in job.steps] == [StepStatus.FAILED] + [StepStatus.SKIPPED] * 8
    assert store.list_events(TENANT, job_id).data[-1].level == "error"


def test_cancelling_a_queued_job_ends_it_and_nobody_gets_it(store):
    job_id = add_job(store)
    assert store.request_cancel(TENANT, job_id).status is JobStatus.CANCELLED
    assert store.request_cancel(TENANT, job_id).status is JobStatus.CANCELLED
    assert store.claim("w", lease_s=LEASE_S) is None


def test_cancelling_a_running_job_reaches_its_worker_with_the_heartbeat(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    assert store.request_cancel(TENANT, job_id).status is JobStatus.CANCELLING
    before = len(store.list_events(TENANT, job_id).data)
    assert store.request_cancel(TENANT, job_id).status is JobStatus.CANCELLING
    assert len(store.list_events(TENANT, job_id).data) == before
    store.record(claim, status=JobStatus.RUNNING)
    assert status_of(store, job_id) is JobStatus.CANCELLING
    assert store.heartbeat(claim, lease_s=LEASE_S) is Directive.CANCEL
    store.mark_cancelled(claim)
    assert status_of(store, job_id) is JobStatus.CANCELLED


def test_a_job_cancelled_after_its_manifest_was_published_still_succeeds(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    store.request_cancel(TENANT, job_id)
    store.succeed(claim, "m", {})
    assert status_of(store, job_id) is JobStatus.SUCCEEDED


def test_a_released_job_is_queued_hinted_and_has_lost_nothing(store):
    job_id = add_job(store)
    for _ in range(6):
        store.release(store.claim("w", lease_s=LEASE_S))
    assert status_of(store, job_id) is JobStatus.QUEUED
    assert store.reconcile().hints == (job_id,)
    assert store.claim("w", lease_s=LEASE_S).attempt == 7


def test_reconcile_puts_lost_jobs_back_and_cancels_those_that_were_cancelling(store):
    lost, cancelling, healthy = add_job(store), add_job(store), add_job(store)
    store.claim("w1", lease_s=LEASE_S)
    store.claim("w2", lease_s=LEASE_S)
    store.request_cancel(TENANT, cancelling)
    expire_leases(store)
    store.claim("w3", lease_s=LEASE_S, job_id=healthy)
    found = store.reconcile()
    assert (found.requeued, found.cancelled, found.failed) == ((lost,), (cancelling,), ())
    assert found.hints == (lost,)
    assert status_of(store, healthy) is JobStatus.VALIDATING_FILES
    again = store.reconcile()
    assert (again.requeued, again.cancelled, again.hints) == ((), (), ())


def test_a_hint_is_repeated_until_the_job_is_claimed(store):
    job_id = add_job(store)
    assert store.reconcile().hints == ()
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE outbox SET due_at = 1")
    assert store.reconcile(hint_after_s=0.0).hints == (job_id,)
    assert store.reconcile(hint_after_s=30.0).hints == (job_id,)
    assert store.reconcile().hints == ()
    store.claim("w", lease_s=LEASE_S)
    with store._engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM outbox").scalar() == 0


@pytest.mark.parametrize("detected_by", ["reconciler", "next claim", "same owner"])
def test_a_job_that_kills_its_workers_is_failed_after_three_losses(store, detected_by):
    job_id = add_job(store)
    attempts = 0
    while claim := store.claim("w", lease_s=LEASE_S):
        attempts += 1
        if detected_by != "same owner":
            expire_leases(store)
        if detected_by == "reconciler":
            store.reconcile()
        assert claim.attempt == attempts <= 4
    job = store.get_job(TENANT, job_id)
    assert (attempts, job.status, job.error.code) == (4, JobStatus.FAILED, "worker_lost")


def test_a_fault_counts_only_together_with_those_of_the_attempts_before(store):
    job_id = add_job(store)
    error = JobError(code="engine_error", message="it broke")
    ended = []
    for number in range(1, 7):
        claim = store.claim("w", lease_s=LEASE_S, max_losses=9)
        if number == 3:
            store.release(claim)
        else:
            ended.append(store.fault(claim, error, max_faults=3))
    assert ended == [False, False, False, False, True]
    job = store.get_job(TENANT, job_id)
    assert (job.status, job.error) == (JobStatus.FAILED, error)


def test_a_job_that_was_to_be_cancelled_is_never_failed_for_its_losses(store):
    job_id = add_job(store)
    store.claim("w", lease_s=LEASE_S)
    store.request_cancel(TENANT, job_id)
    for _ in range(6):
        claim = store.claim("w", lease_s=LEASE_S)
    assert not store.fault(claim, JobError(code="engine_error", message="m"), max_faults=1)
    assert store.heartbeat(claim, lease_s=LEASE_S) is Directive.CANCEL
    store.mark_cancelled(claim)
    assert status_of(store, job_id) is JobStatus.CANCELLED


def test_losses_with_progress_between_them_are_forgiven(store):
    job_id = add_job(store)
    for done in range(1, 9):
        claim = store.claim("w", lease_s=LEASE_S)
        store.record(claim, steps=[StepUpdate(StageName.PURIFY, RUNNING, done=done)])
    assert store.claim("w", lease_s=LEASE_S).attempt == 9
    assert status_of(store, job_id) is JobStatus.VALIDATING_FILES


def test_doing_the_same_work_again_is_not_progress(store):
    job_id = add_job(store)
    for _ in range(5):
        claim = store.claim("w", lease_s=LEASE_S)
        if claim is None:
            break
        store.record(
            claim,
            steps=[
                StepUpdate(StageName.INGEST, SUCCEEDED, reused=True),
                StepUpdate(StageName.PURIFY, RUNNING, done=5),
            ],
        )
    assert store.get_job(TENANT, job_id).error.code == "worker_lost"


def test_a_new_attempt_resets_the_step_that_was_running_and_keeps_the_finished(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=LEASE_S)
    store.record(
        claim,
        steps=[StepUpdate(StageName.INGEST, SUCCEEDED), StepUpdate(StageName.FINE_TUNE, RUNNING)],
    )
    store.claim("w", lease_s=LEASE_S)
    assert step_of(store, job_id, StageName.INGEST).status is SUCCEEDED
    assert step_of(store, job_id, StageName.FINE_TUNE).status is PENDING


CLAIMER = """
import sys
from storage.connect import open_job_store
store = open_job_store(sys.argv[1])
while claim := store.claim(sys.argv[2], lease_s=60.0):
    print(claim.job_id, claim.attempt, flush=True)
    store.succeed(claim, "m", {})
"""


def test_two_processes_that_claim_at_once_share_the_jobs_without_overlap(store, database):
    jobs = {add_job(store) for _ in range(40)}
    claimers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, database, f"w{n}"], stdout=subprocess.PIPE, text=True
        )
        for n in range(2)
    ]
    outputs = [claimer.communicate(timeout=60)[0] for claimer in claimers]
    assert [claimer.returncode for claimer in claimers] == [0, 0]
    claimed = [line.split() for output in outputs for line in output.splitlines()]
    assert sorted(job_id for job_id, _ in claimed) == sorted(jobs)
    assert {attempt for _, attempt in claimed} == {"1"}
