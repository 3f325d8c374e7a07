"""A defense job as clients see it, with its steps, events and metrics."""

from collections.abc import Collection
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, computed_field

from schemas.requests import (
    ALL_STAGES,
    AnyMethod,
    AskedStage,
    Evaluation,
    ExtraArtifact,
    Validation,
)
from schemas.wire import Resource


class JobStatus(StrEnum):
    """OpenAI's fine-tuning statuses and `cancelling`; `stage` and `steps` carry the detail."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a job in this status will never change again."""
        return self in TERMINAL


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
WORKING = frozenset({JobStatus.VALIDATING_FILES, JobStatus.RUNNING})
STOPPING = frozenset({JobStatus.PAUSING, JobStatus.CANCELLING})
LEASED = WORKING | STOPPING


class StageName(StrEnum):
    """The stages of Algorithm 1 and of detection, which comes first where it chooses samples."""

    INGEST = "ingest"
    FINE_TUNE = "fine_tune"
    EVALUATE_BEFORE = "evaluate_before"
    SALIENCY = "saliency"
    PURIFY = "purify"
    DETECT = "detect"
    RETRAIN = "retrain"
    EVALUATE_AFTER = "evaluate_after"
    REPORT = "report"


OF_EVERY_JOB = frozenset({StageName.INGEST, StageName.FINE_TUNE, StageName.REPORT})
STAGES_OF: dict[AskedStage, frozenset[StageName]] = {
    "detect": frozenset({StageName.SALIENCY, StageName.DETECT}),
    "purify": frozenset({StageName.SALIENCY, StageName.PURIFY}),
    "retrain": frozenset({StageName.RETRAIN}),
    "evaluate": frozenset({StageName.EVALUATE_BEFORE}),
}


def stages_to_run(asked: Collection[AskedStage]) -> frozenset[StageName]:
    """Return the stages that a job may run if these parts of the pipeline are asked for."""
    found = OF_EVERY_JOB.union(*(STAGES_OF[name] for name in asked))
    measured_again = {"retrain", "evaluate"} <= set(asked)
    return found | {StageName.EVALUATE_AFTER} if measured_again else found


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

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way
    @property
    def percent(self) -> float | None:
        """How much of the stage is done, 0 to 100; None while that is not known."""
        if self.status is StepStatus.SUCCEEDED:
            return 100.0
        return round(100 * min(1.0, self.done / self.total), 1) if self.total else None


class Usage(Resource):
    """What a job has cost so far, on the database's clock.

    `worker_seconds` sums the attempts that have ended, each from its claim to its end; of one whose
    worker was lost, to the end of its lease.
    """

    worker_seconds: float


class DataFault(Resource):
    """One thing that is wrong with a dataset: the member, line and record; its kind; the reason."""

    where: str
    code: str
    reason: str


class JobError(Resource):
    """Why a job failed; `param` names the part of the request that is at fault, if one is.

    `faults` lists the first hundred faults of a dataset that did not pass `strict` validation.
    """

    code: str
    message: str
    param: str | None = None
    faults: list[DataFault] = Field(default_factory=list)


class Job(Resource):
    """A defense job; times are Unix seconds on the database's clock."""

    id: str
    object: Literal["defense.job"] = "defense.job"
    status: JobStatus
    stage: StageName | None = None
    steps: list[Step] = Field(default_factory=list)
    model: str
    model_revision: str | None = None
    training_file: str
    checkpoint_file: str | None = None
    evaluation: Evaluation | None = None
    method: AnyMethod
    stages: list[AskedStage] = Field(default_factory=lambda: list(ALL_STAGES))
    validation: Validation = "quarantine"
    artifacts: list[ExtraArtifact] = Field(default_factory=list)
    model_options: dict[str, str | int | float] = Field(default_factory=dict)
    seed: int
    suffix: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    webhook: str | None = None
    created_at: int
    started_at: int | None = None
    finished_at: int | None = None
    attempt: int = 0
    retry_of: str | None = None
    usage: Usage | None = None
    result: dict[str, Any] | None = None
    result_files: list[str] = Field(default_factory=list)
    error: JobError | None = None


class JobDeleted(Resource):
    """The answer to a deletion."""

    id: str
    object: Literal["defense.job"] = "defense.job"
    deleted: Literal[True] = True


class Checkpoint(Resource):
    """A projector that a job has published; `metrics` are those of its last training step.

    The states from which a killed run goes on are the workers' own and are not listed.
    """

    id: str
    object: Literal["defense.job.checkpoint"] = "defense.job.checkpoint"
    job_id: str
    created_at: int
    stage: StageName
    step: int | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    artifact: str
    bytes: int
    sha256: str


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
