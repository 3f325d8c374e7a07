"""From this service's jobs to OpenAI's shape of them, and back."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from schemas.fine_tuning import (
    AliasStatus,
    FineTuningCheckpoint,
    FineTuningEvent,
    FineTuningJob,
    FineTuningJobCreate,
    FineTuningParameters,
)
from schemas.jobs import Checkpoint, Event, Job, JobStatus
from schemas.requests import DefenseJobCreate, JobOptions
from schemas.wire import Page

Ours = TypeVar("Ours")
Theirs = TypeVar("Theirs")
STATUSES: dict[JobStatus, AliasStatus] = {
    JobStatus.VALIDATING_FILES: "validating_files",
    JobStatus.QUEUED: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.PAUSING: "running",
    JobStatus.PAUSED: "paused",
    JobStatus.CANCELLING: "running",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}


def request_of(body: FineTuningJobCreate) -> DefenseJobCreate:
    """Return the request for the job that the body asks for."""
    options = {name: getattr(body, name) for name in JobOptions.model_fields}
    return DefenseJobCreate(
        **options | {"evaluation": body.chosen_evaluation()},
        model=body.model,
        training_file=body.training_file,
        method=body.chosen_method(),
        seed=body.seed or 0,
        metadata=body.metadata or {},
    )


def job(tenant: str, ours: Job) -> FineTuningJob:
    """Return a job as OpenAI's clients read it."""
    chosen = ours.method.hyperparameters
    return FineTuningJob(
        id=ours.id,
        created_at=ours.created_at,
        finished_at=ours.finished_at,
        error=ours.error,
        hyperparameters=FineTuningParameters(
            n_epochs=chosen.epochs or "auto", batch_size=chosen.batch_size or "auto"
        ),
        method=ours.method,
        model=ours.model,
        organization_id=tenant,
        result_files=ours.result_files,
        seed=ours.seed,
        status=STATUSES[ours.status],
        training_file=ours.training_file,
        validation_file=ours.evaluation.clean_file if ours.evaluation else None,
        metadata=ours.metadata,
        user_provided_suffix=ours.suffix,
        model_revision=ours.model_revision,
        checkpoint_file=ours.checkpoint_file,
        evaluation=ours.evaluation,
        stages=ours.stages,
        validation=ours.validation,
        artifacts=ours.artifacts,
        model_options=ours.model_options,
        webhook=ours.webhook,
    )


def event(ours: Event) -> FineTuningEvent:
    """Return an event as OpenAI's clients read it."""
    return FineTuningEvent(
        id=ours.id,
        created_at=ours.created_at,
        level=ours.level,
        message=ours.message,
        data=ours.data,
    )


def checkpoint(ours: Checkpoint) -> FineTuningCheckpoint:
    """Return a checkpoint as OpenAI's clients read it."""
    return FineTuningCheckpoint(
        id=ours.id,
        created_at=ours.created_at,
        fine_tuned_model_checkpoint=ours.id,
        fine_tuning_job_id=ours.job_id,
        metrics=ours.metrics,
        step_number=ours.step or 0,
    )


def page(ours: Page[Ours], shape: Callable[[Ours], Theirs]) -> Page[Theirs]:
    """Return the same page of other items."""
    data: Sequence[Theirs] = [shape(item) for item in ours.data]
    return Page(data=data, has_more=ours.has_more, first_id=ours.first_id, last_id=ours.last_id)
