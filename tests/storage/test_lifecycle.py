"""Any order of requests, deaths and repairs, against a model of a few lines."""

import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from schemas.jobs import JobError, JobStatus, StepStatus
from storage import migrate
from storage.connect import open_job_store
from storage.errors import LeaseLost
from storage.interfaces import Directive, EventDraft
from tests.storage.world import TENANT, add_job, add_training_file, expire_leases, register_tiny

LEASE_S, MAX_LOSSES = 600.0, 3
ACTIVE = ("validating_files", "cancelling")


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
        becomes = {"queued": "cancelled", "validating_files": "cancelling"}
        self.expected[job_id] = becomes.get(self.expected[job_id], self.expected[job_id])
        assert self.store.request_cancel(TENANT, job_id).status == self.expected[job_id]

    @rule()
    def all_workers_die_and_the_reconciler_comes(self):
        expire_leases(self.store)
        self.store.reconcile(max_losses=MAX_LOSSES)
        for job_id in self.holders:
            self.losses[job_id] += self.expected[job_id] != "cancelling"
            lost = "failed" if self.losses[job_id] > MAX_LOSSES else "queued"
            self.expected[job_id] = "cancelled" if self.expected[job_id] == "cancelling" else lost
        self.holders.clear()

    @rule(claim=claims)
    def heartbeat(self, claim):
        cancelling = self.expected[claim.job_id] == "cancelling"
        held = Directive.CANCEL if cancelling else Directive.CONTINUE
        expected = held if self.holds(claim) else Directive.LOST
        assert self.store.heartbeat(claim, lease_s=LEASE_S) is expected

    @rule(claim=claims, how=st.sampled_from(["succeed", "fail", "cancel", "release", "record"]))
    def write(self, claim, how):
        held = self.holds(claim)
        cancelling = self.expected[claim.job_id] == "cancelling"
        if not held:
            with pytest.raises(LeaseLost):
                self.call(claim, how)
            return
        self.call(claim, how)
        becomes = {
            "succeed": "succeeded",
            "fail": "failed",
            "cancel": "cancelled",
            "release": "cancelled" if cancelling else "queued",
        }
        if how != "record":
            self.expected[claim.job_id] = becomes[how]
            del self.holders[claim.job_id]

    @invariant()
    def the_store_agrees(self):
        for job in self.store.list_jobs(TENANT, limit=100).data:
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
TestLifecycle.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
