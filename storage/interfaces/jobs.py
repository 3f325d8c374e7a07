"""Jobs as their tenants see them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.jobs import Event, Job, JobStatus, Metric, StageName
from schemas.requests import DefenseJobCreate
from schemas.wire import Page
from storage.idempotency import Idempotency
from storage.interfaces.order import Order


@dataclass(frozen=True)
class CreatedJob:
    """A job as first answered; `replayed` when the Idempotency-Key had created it earlier."""

    job: Job
    replayed: bool


class GatewayStore(Protocol):
    """Jobs as the gateway sees them: always through a tenant's eyes."""

    def create_job(
        self,
        tenant: str,
        request: DefenseJobCreate,
        idempotency: Idempotency | None = None,
        *,
        max_unfinished: int | None = None,
        traceparent: str | None = None,
    ) -> CreatedJob:
        """Write job, steps, first event, hint and idempotency row in one transaction.

        `traceparent` is the W3C header of the request's trace, for the worker to go on with.
        Raises `UnknownModel`, `WrongKind`, `UnknownFile`, `UnusableFile`, `UnknownWebhook`,
        `IdempotencyKeyReused`, `IdempotencyInFlight`, or `QuotaExceeded` when the tenant has
        `max_unfinished` jobs already.
        """
        ...

    def retry_job(
        self,
        tenant: str,
        job_id: str,
        idempotency: Idempotency | None = None,
        *,
        max_unfinished: int | None = None,
        traceparent: str | None = None,
    ) -> CreatedJob:
        """Create a job with the request of one that has failed or was cancelled.

        Raises `JobStatusConflict` for any other, and all that `create_job` raises.
        """
        ...

    def get_job(self, tenant: str, job_id: str) -> Job:
        """Return a job or raise `NotFound`."""
        ...

    def list_jobs(
        self,
        tenant: str,
        *,
        status: JobStatus | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        before: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[Job]:
        """Return a page of jobs by id, that is, by time of creation.

        `metadata` wants every one of its labels. `before` alone gives the page that ends there.
        """
        ...

    def request_cancel(self, tenant: str, job_id: str) -> Job:
        """Cancel a waiting job at once, ask a running one to stop, leave a finished one alone."""
        ...

    def request_pause(self, tenant: str, job_id: str) -> Job:
        """Pause a queued job at once, ask a running one to save its work and stop.

        A job that is pausing or paused is left alone; any other raises `JobStatusConflict`.
        """
        ...

    def resume_job(self, tenant: str, job_id: str) -> Job:
        """Queue a paused job again; let one that is pausing go on.

        A job that is queued or at work is left alone; any other raises `JobStatusConflict`.
        """
        ...

    def delete_job(self, tenant: str, job_id: str) -> None:
        """Remove a job that has ended, with its history and the rows of its result files.

        Raises `JobStatusConflict` before its end, `FileInUse` while another job reads a result.
        """
        ...

    def list_events(
        self, tenant: str, job_id: str, *, after: str | int | None = None, limit: int = 100
    ) -> Page[Event]:
        """Return events oldest first; `after` is the id, or the `seq`, of the last one seen."""
        ...

    def list_metrics(
        self,
        tenant: str,
        job_id: str,
        *,
        stage: StageName | None = None,
        after: str | None = None,
        limit: int = 1000,
    ) -> Page[Metric]:
        """Return metrics in the order of writing; `after` is the `last_id` of a page."""
        ...

    def last_events(self, tenant: str, job_id: str, *, limit: int) -> Sequence[Event]:
        """Return the newest events, the newest first."""
        ...

    def metric_curve(self, tenant: str, job_id: str, *, most: int) -> Sequence[Metric]:
        """Return at most about `most` metrics, evenly spread over the job, the last among them."""
        ...

    def published_manifest(self, tenant: str, job_id: str) -> str | None:
        """Return the key of a succeeded job's manifest, None while there is none."""
        ...
