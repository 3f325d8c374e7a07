"""Jobs in OpenAI's wire shape, so that its stock clients drive the service."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas.jobs import JobError
from schemas.requests import (
    AnyMethod,
    AskedStage,
    DispHyperparameters,
    Evaluation,
    ExtraArtifact,
    FileId,
    JobOptions,
    MetadataKey,
    MetadataValue,
    Method,
    ModelId,
    Seed,
    Validation,
)
from schemas.wire import Request, Resource

Auto = Literal["auto"]
AliasStatus = Literal[
    "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
]


class FineTuningHyperparameters(Request):
    """OpenAI's knobs as far as this service has them; `auto` takes the model card's default."""

    n_epochs: Annotated[int, Field(ge=1, le=1000)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=65536)] | Auto = "auto"
    learning_rate_multiplier: Auto = "auto"


class FineTuningJobCreate(JobOptions):
    """The body of `POST /v1/fine_tuning/jobs`.

    `method` and all that `JobOptions` lists, `suffix` apart, are this service's own: OpenAI's
    client sends them as its `extra_body`. `validation_file` is a clean set to measure with, as
    `evaluation.clean_file` is.
    """

    model: ModelId
    training_file: FileId
    validation_file: FileId | None = None
    hyperparameters: FineTuningHyperparameters | None = None
    method: AnyMethod | None = None
    seed: Seed | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None

    @model_validator(mode="after")
    def _says_nothing_twice(self) -> "FineTuningJobCreate":
        if self.hyperparameters is not None and self.method is not None:
            raise ValueError("give hyperparameters or method, not both")
        clean = self.evaluation.clean_file if self.evaluation else None
        if self.validation_file is not None and clean is not None:
            raise ValueError("give validation_file or evaluation.clean_file, not both")
        self.require_stages(self.chosen_method())
        return self

    def chosen_method(self) -> AnyMethod:
        """Return the method that the body asks for in either of its ways."""
        if self.method is not None:
            return self.method
        asked = self.hyperparameters or FineTuningHyperparameters()
        given = {"epochs": asked.n_epochs, "batch_size": asked.batch_size}
        known = {name: value for name, value in given.items() if value != "auto"}
        return Method(hyperparameters=DispHyperparameters.model_validate(known, strict=False))

    def chosen_evaluation(self) -> Evaluation | None:
        """Return what to measure, the validation file included."""
        if self.validation_file is None:
            return self.evaluation
        clean = {"clean_file": self.validation_file}
        return (self.evaluation or Evaluation()).model_copy(update=clean)


class FineTuningParameters(Resource):
    """The hyperparameters of a job as OpenAI names them."""

    n_epochs: float | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: Auto = "auto"


class FineTuningJob(Resource):
    """A job as OpenAI's clients read it.

    There is no model to call in the end, so `fine_tuned_model` stays null; the purified dataset and
    the projector are among `result_files`. A job that is pausing or cancelling is still `running`.
    From `model_revision` to `webhook` the fields are this service's own.
    """

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    error: JobError | None
    fine_tuned_model: None = None
    hyperparameters: FineTuningParameters
    method: AnyMethod
    model: str
    organization_id: str
    result_files: list[str]
    seed: int
    status: AliasStatus
    trained_tokens: None = None
    training_file: str
    validation_file: str | None
    model_revision: str | None
    checkpoint_file: str | None
    evaluation: Evaluation | None
    stages: list[AskedStage]
    validation: Validation
    artifacts: list[ExtraArtifact]
    model_options: dict[str, str | int | float]
    webhook: str | None
    estimated_finish: None = None
    integrations: list[Any] = Field(default_factory=list)
    metadata: dict[str, str]
    user_provided_suffix: str | None


class FineTuningEvent(Resource):
    """An event as OpenAI's clients read it."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message"] = "message"
    data: dict[str, Any]


class FineTuningCheckpoint(Resource):
    """A projector as OpenAI's clients read it; its id is that of a file."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float]
    step_number: int
