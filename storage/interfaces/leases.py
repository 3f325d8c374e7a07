"""Jobs as those see them who work on them.

A `Claim` is a fencing token: every call names its attempt, and raises `LeaseLost` once another
attempt, the reconciler or a verdict has taken the job away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from schemas.jobs import JobError, JobStatus, StageName, StepStatus
from schemas.requests import DefenseJobCreate
from storage.interfaces.files import FileBlob, FileDraft, Findings
from storage.interfaces.models import ModelRecord


@dataclass(frozen=True)
class Claim:
    """The right to work on a job until the lease ends or another attempt begins.

    `traceparent` is the trace of the request that created the job, in W3C's form.
    """

    job_id: str
    tenant: str
    attempt: int
    owner: str
    traceparent: str | None = None


class Directive(StrEnum):
    """What a heartbeat answers: go on, stop for a pause or for good, or the lease is gone."""

    CONTINUE = "continue"
    PAUSE = "pause"
    CANCEL = "cancel"
    LOST = "lost"


@dataclass(frozen=True)
class JobInputs:
    """All that one attempt needs to know."""

    request: DefenseJobCreate
    model: ModelRecord
    training: FileBlob
    triggered: FileBlob | None = None
    clean: FileBlob | None = None
    checkpoint: FileBlob | None = None


@dataclass(frozen=True)
class StepUpdate:
    """What changed in a step; None leaves a field as it is. The store stamps the times."""

    name: StageName
    status: StepStatus | None = None
    done: int | None = None
    total: int | None = None
    unit: str | None = None
    reused: bool | None = None


@dataclass(frozen=True)
class EventDraft:
    """An event before the store gives it id, number and time."""

    message: str
    level: Literal["info", "warn", "error"] = "info"
    type: Literal["message", "stage", "status"] = "message"
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MetricDraft:
    """A training step's values before the store gives them their time."""

    stage: StageName
    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class ValidationDraft:
    """What was found in the file that the job's request names as `param`."""

    param: Literal["training_file", "triggered_file", "clean_file"]
    findings: Findings


@dataclass(frozen=True)
class Reconciled:
    """What a reconciliation found; hints are to be sent (again).

    `hints` and what follows are ids of jobs, `file_hints` and what follows those of files.
    """

    hints: tuple[str, ...] = ()
    requeued: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    file_hints: tuple[str, ...] = ()
    files_returned: tuple[str, ...] = ()
    files_failed: tuple[str, ...] = ()


class LeaseStore(Protocol):
    """Jobs as a worker sees them: through a lease."""

    def claim(
        self, owner: str, *, lease_s: float, job_id: str | None = None, max_losses: int = 3
    ) -> Claim | None:
        """Take the oldest job that may be taken (or `job_id`, if it may) for a new attempt.

        That is: a queued one; a leased one whose lease has expired; a leased one held by this very
        `owner` string, for an owner that claims again has lost its earlier attempt. The last two
        count as a loss; a job that has been lost more than `max_losses` times in a row without
        progress is failed with `worker_lost` instead, and one that was pausing is paused. The
        status becomes `validating_files`, or stays `cancelling`, whatever was lost: heartbeat at
        once to learn of it.
        """
        ...

    def job_inputs(self, claim: Claim) -> JobInputs:
        """Return the request with its model and files, or raise `LeaseLost`."""
        ...

    def heartbeat(self, claim: Claim, *, lease_s: float) -> Directive:
        """Extend the lease to `lease_s` from now, unless it is lost; never raises `LeaseLost`."""
        ...

    def record(
        self,
        claim: Claim,
        *,
        status: JobStatus | None = None,
        steps: Sequence[StepUpdate] = (),
        events: Sequence[EventDraft] = (),
        metrics: Sequence[MetricDraft] = (),
        validations: Sequence[ValidationDraft] = (),
    ) -> None:
        """Write what happened in one transaction, or raise `LeaseLost` and write nothing.

        `status` may be `validating_files` or `running`; it undoes neither `cancelling` nor
        `pausing`. A step that gets further than any attempt before it resets the count of losses.
        The job's `stage` follows the last step set to `running`.
        """
        ...

    def release(self, claim: Claim) -> None:
        """Hand the job back unharmed, no loss counted: queued, or paused or cancelled if asked."""
        ...

    def fault(self, claim: Claim, error: JobError, *, max_faults: int = 3) -> bool:
        """Note in the history that the attempt broke with an error that might pass.

        The `max_faults`th attempt in a row to break ends the job with its error; tells whether
        this one did. Otherwise the lease is left to run out.
        """
        ...

    def succeed(
        self,
        claim: Claim,
        manifest_key: str,
        result: Mapping[str, Any],
        files: Sequence[FileDraft] = (),
    ) -> None:
        """End the job with the artifacts that `manifest_key` lists, also if it was to stop.

        `files` gives artifacts ids under which clients find them among their files.
        """
        ...

    def fail(self, claim: Claim, error: JobError) -> None:
        """End the job with an error."""
        ...

    def mark_cancelled(self, claim: Claim) -> None:
        """End the job as its owner asked."""
        ...

    def reconcile(self, *, max_losses: int = 3, hint_after_s: float = 30.0) -> Reconciled:
        """Repair what a death left behind; idempotent, and several may run at once.

        Expired leases go back to the queue (or, when pausing or cancelling, to `paused` or
        `cancelled`; or, lost too often, to `failed`). Queued jobs unhinted for `hint_after_s` come
        back as `hints`. Files whose reader was lost are `uploaded` again; at the `max_losses`th
        loss they are in `error`, for reading them must be what kills.
        """
        ...
