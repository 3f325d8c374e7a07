"""A defense job as clients see it, with its steps, events and metrics."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from schemas.requests import AnyMethod, Evaluation
from schemas.wire import Resource


class JobStatus(StrEnum):
    """OpenAI's fine-tuning statuses and `cancelling`; `stage` and `steps` carry the detail."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a job in this status will never change again."""
        return self in TERMINAL


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
LEASED = frozenset({JobStatus.VALIDATING_FILES, JobStatus.RUNNING, JobStatus.CANCELLING})


class StageName(StrEnum):
    """The stages of Algorithm 1, in the order in which they run."""

    INGEST = "ingest"
    FINE_TUNE = "fine_tune"
    EVALUATE_BEFORE = "evaluate_before"
    SALIENCY = "saliency"
    PURIFY = "purify"
    RETRAIN = "retrain"
    EVALUATE_AFTER = "evaluate_after"
    REPORT = "report"


class StepStatus(StrEnum):
    """How far one stage is; `skipped` when the request gives it nothing to do."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class Step(Resource):
    """One stage of one job; `attempt` is the last attempt that touched it.

    `done` and `total` count `unit`: samples, pictures or steps of the optimiser.
    """

    name: StageName
    status: StepStatus = StepStatus.PENDING
    done: int = 0
    total: int | None = None
    unit: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    reused: bool = False
    attempt: int = 0


class JobError(Resource):
    """Why a job failed; `param` names the part of the request that is at fault, if one is."""

    code: str
    message: str
    param: str | None = None


class Job(Resource):
    """A defense job; times are Unix seconds on the database's clock."""

    id: str
    object: Literal["defense.job"] = "defense.job"
    status: JobStatus
    stage: StageName | None = None
    steps: list[Step] = Field(default_factory=list)
    model: str
    training_file: str
    evaluation: Evaluation | None = None
    method: AnyMethod
    seed: int
    suffix: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    created_at: int
    started_at: int | None = None
    finished_at: int | None = None
    attempt: int = 0
    result: dict[str, Any] | None = None
    error: JobError | None = None


class Event(Resource):
    """Something that happened to a job; `seq` counts from 1 within the job, without gaps."""

    id: str
    object: Literal["defense.job.event"] = "defense.job.event"
    seq: int
    created_at: int
    level: Literal["info", "warn", "error"]
    type: Literal["message", "stage", "status"]
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


class Metric(Resource):
    """The values of one training step."""

    stage: StageName
    step: int
    values: dict[str, float]
    created_at: float
