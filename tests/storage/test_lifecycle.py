"""Any order of requests, deaths and repairs, against a model of a few lines."""

import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from schemas.jobs import JobError, JobStatus, StepStatus
from storage import migrate
from storage.connect import open_job_store
from storage.errors import JobStatusConflict, LeaseLost, NotFound
from storage.interfaces import Directive, EventDraft
from tests.storage.world import TENANT, add_job, add_training_file, expire_leases, register_tiny

LEASE_S, MAX_LOSSES = 600.0, 3
ACTIVE = ("validating_files", "running", "pausing", "cancelling")
HELD_BACK = {"pausing": "paused", "cancelling": "cancelled"}
PAUSED_BY_REQUEST = {"queued": "paused", "validating_files": "pausing", "running": "pausing"}
RESUMED = {"paused": "queued", "pausing": "running"}
DIRECTIVES = {"pausing": Directive.PAUSE, "cancelling": Directive.CANCEL}


class Lifecycle(RuleBasedStateMachine):
    """`expected` holds each job's status; `holders` the attempt that may still write."""

    jobs = Bundle("jobs")
    claims = Bundle("claims")

    @initialize()
    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        url = f"sqlite:///{self.folder.name}/jobs.sqlite"
        migrate.upgrade(url)
        self.store = open_job_store(url)
        register_tiny(self.store)
        self.file_id = add_training_file(self.store, TENANT)
        self.expected, self.holders, self.losses, self.endings = {}, {}, {}, {}
        self.workers = 0

    @rule(target=jobs)
    def create(self):
        job_id = add_job(self.store, training_file=self.file_id)
        self.expected[job_id], self.losses[job_id] = "queued", 0
        return job_id

    @rule(target=claims)
    def claim(self):
        self.workers += 1
        claim = self.store.claim(f"w{self.workers}", lease_s=LEASE_S, max_losses=MAX_LOSSES)
        queued = sorted(job for job, status in self.expected.items() if status == "queued")
        assert (claim and claim.job_id) == (queued[0] if queued else None)
        if claim is None:
            return multiple()
        self.expected[claim.job_id] = "validating_files"
        self.holders[claim.job_id] = claim
        return claim

    @rule(job_id=jobs)
    def cancel(self, job_id):
        before = self.expected[job_id]
        if before in ("queued", "paused"):
            self.expected[job_id] = "cancelled"
        elif before in ACTIVE:
            self.expected[job_id] = "cancelling"
        assert self.store.request_cancel(TENANT, job_id).status == self.expected[job_id]

    @rule(job_id=jobs)
    def pause(self, job_id):
        allowed = PAUSED_BY_REQUEST | {"pausing": "pausing", "paused": "paused"}
        self.ask(self.store.request_pause, job_id, allowed)

    @rule(job_id=jobs)
    def resume(self, job_id):
        unchanged = {status: status for status in ("queued", "validating_files", "running")}
        self.ask(self.store.resume_job, job_id, RESUMED | unchanged)

    @rule(job_id=jobs, target=jobs)
    def retry(self, job_id):
        if self.expected[job_id] not in ("failed", "cancelled"):
            with pytest.raises(JobStatusConflict):
                self.store.retry_job(TENANT, job_id)
            return multiple()
        again = self.store.retry_job(TENANT, job_id).job
        assert (again.retry_of, again.status, again.attempt) == (job_id, "queued", 0)
        self.expected[again.id], self.losses[again.id] = "queued", 0
        return again.id

    @rule(job_id=consumes(jobs))
    def delete(self, job_id):
        if not JobStatus(self.expected[job_id]).terminal:
            with pytest.raises(JobStatusConflict):
                self.store.delete_job(TENANT, job_id)
            return
        self.store.delete_job(TENANT, job_id)
        del self.expected[job_id]
        with pytest.raises(NotFound):
            self.store.get_job(TENANT, job_id)

    @rule()
    def all_workers_die_and_the_reconciler_comes(self):
        expire_leases(self.store)
        self.store.reconcile(max_losses=MAX_LOSSES)
        for job_id in self.holders:
            self.lose(job_id)
        self.holders.clear()

    @rule(claim=claims, target=claims)
    def the_same_owner_claims_again(self, claim):
        if not self.holds(claim):
            return multiple()
        was = self.expected[claim.job_id]
        again = self.store.claim(
            claim.owner, lease_s=LEASE_S, job_id=claim.job_id, max_losses=MAX_LOSSES
        )
        del self.holders[claim.job_id]
        if was == "cancelling":
            self.holders[claim.job_id] = again
            return again
        self.lose(claim.job_id)
        if self.expected[claim.job_id] != "queued":
            assert again is None
            return multiple()
        self.expected[claim.job_id] = "validating_files"
        self.holders[claim.job_id] = again
        return again

    @rule(claim=claims)
    def heartbeat(self, claim):
        held = DIRECTIVES.get(self.expected.get(claim.job_id), Directive.CONTINUE)
        expected = held if self.holds(claim) else Directive.LOST
        assert self.store.heartbeat(claim, lease_s=LEASE_S) is expected

    @rule(claim=claims, how=st.sampled_from(["succeed", "fail", "cancel", "release", "record"]))
    def write(self, claim, how):
        if not self.holds(claim):
            with pytest.raises(LeaseLost):
                self.call(claim, how)
            return
        becomes = {
            "succeed": "succeeded",
            "fail": "failed",
            "cancel": "cancelled",
            "release": HELD_BACK.get(self.expected[claim.job_id], "queued"),
        }
        self.call(claim, how)
        if how != "record":
            self.expected[claim.job_id] = becomes[how]
            del self.holders[claim.job_id]

    @invariant()
    def the_store_agrees(self):
        listed = self.store.list_jobs(TENANT, limit=100).data
        assert {job.id for job in listed} == set(self.expected)
        for job in listed:
            assert job.status == self.expected[job.id]
            assert (job.finished_at is not None) == job.status.terminal
            assert (job.error is not None) == (job.status is JobStatus.FAILED)
            manifest = self.store.published_manifest(TENANT, job.id)
            assert (manifest is not None) == (job.status is JobStatus.SUCCEEDED)
            running = [step for step in job.steps if step.status is StepStatus.RUNNING]
            assert not running or job.status in ACTIVE

    @invariant()
    def endings_are_final_and_events_have_no_gaps(self):
        for job_id, status in self.expected.items():
            if JobStatus(status).terminal:
                assert self.endings.setdefault(job_id, status) == status
            events = self.store.list_events(TENANT, job_id, limit=1000).data
            assert [event.seq for event in events] == list(range(1, len(events) + 1))

    @invariant()
    def only_queued_jobs_are_hinted_at(self):
        with self.store._engine.begin() as connection:
            hinted = connection.exec_driver_sql("SELECT job_id FROM outbox").scalars().all()
        queued = {job for job, status in self.expected.items() if status == "queued"}
        assert set(hinted) == queued

    def ask(self, request, job_id, allowed):
        """Make a request; what is not allowed is refused and changes nothing."""
        before = self.expected[job_id]
        if before in allowed:
            self.expected[job_id] = allowed[before]
            assert request(TENANT, job_id).status == allowed[before]
        else:
            with pytest.raises(JobStatusConflict):
                request(TENANT, job_id)

    def lose(self, job_id):
        before = self.expected[job_id]
        self.losses[job_id] += before not in HELD_BACK
        lost = "failed" if self.losses[job_id] > MAX_LOSSES else "queued"
        self.expected[job_id] = HELD_BACK.get(before, lost)

    def holds(self, claim):
        return self.holders.get(claim.job_id) == claim

    def call(self, claim, how):
        error = JobError(code="engine_error", message="x")
        {
            "succeed": lambda: self.store.succeed(claim, "manifest", {}),
            "fail": lambda: self.store.fail(claim, error),
            "cancel": lambda: self.store.mark_cancelled(claim),
            "release": lambda: self.store.release(claim),
            "record": lambda: self.store.record(claim, events=[EventDraft("progress")]),
        }[how]()

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
