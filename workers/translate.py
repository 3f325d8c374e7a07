"""From the engine's JSON lines to the words of the store."""

import time
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.errors import ErrorCode
from schemas.files import FileRefusal
from schemas.jobs import DataFault, JobError, JobStatus, StageName, StepStatus
from storage.errors import LeaseLost
from storage.interfaces import (
    Claim,
    EventDraft,
    Findings,
    LeaseStore,
    MetricDraft,
    StepUpdate,
    ValidationDraft,
)
from storage.telemetry.traces import StageSpans

log = structlog.get_logger()

FLUSH_S = 1.0


class EngineMessage(BaseModel):
    """One line of the engine's; fields that a newer engine adds are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class StageMessage(EngineMessage):
    """A stage begins or ends."""

    type: Literal["stage"]
    stage: StageName
    status: Literal["running", "succeeded"]
    seconds: float | None = None
    reused: bool | None = None


class ProgressMessage(EngineMessage):
    """How far a stage is."""

    type: Literal["progress"]
    stage: StageName
    done: int = Field(ge=0)
    total: int = Field(ge=0)
    unit: str


class MetricMessage(EngineMessage):
    """The values of one training step."""

    type: Literal["metric"]
    stage: StageName
    step: int = Field(ge=0)
    values: dict[str, float]


class TextMessage(EngineMessage):
    """Something to tell the job's owner."""

    type: Literal["message"]
    level: Literal["info", "warn"]
    stage: StageName | None = None
    text: str


class ValidatedMessage(EngineMessage):
    """What was found in one of the job's files."""

    type: Literal["validated"]
    param: Literal["training_file", "triggered_file", "clean_file"]
    records: int = Field(ge=0)
    usable: int = Field(ge=0)
    repeated_ids: int = Field(ge=0)
    fault_count: int = Field(ge=0)
    faults: list[DataFault]
    error: FileRefusal | None

    def findings(self) -> Findings:
        """The same in the words of the store."""
        return Findings(
            records=self.records,
            usable=self.usable,
            repeated_ids=self.repeated_ids,
            fault_count=self.fault_count,
            faults=self.faults,
            error=self.error,
        )


class DoneMessage(EngineMessage):
    """All artifacts are in the output folder."""

    type: Literal["done"]


class ErrorMessage(EngineMessage):
    """Why there are none."""

    type: Literal["error"]
    code: ErrorCode
    message: str
    param: str | None = None
    faults: list[DataFault] = Field(default_factory=list)

    def job_error(self) -> JobError:
        """The same in the words of the job."""
        return JobError(
            code=self.code.value, message=self.message, param=self.param, faults=self.faults
        )


Message = (
    StageMessage
    | ProgressMessage
    | MetricMessage
    | TextMessage
    | ValidatedMessage
    | DoneMessage
    | ErrorMessage
)
_message: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def parse(line: bytes) -> Message | None:
    """Return what a line says; None for one that the protocol does not know."""
    try:
        return _message.validate_json(line)
    except ValidationError:
        return None


@dataclass
class Draft:
    """What waits to be written; of a step only the latest state is worth a write."""

    steps: dict[StageName, StepUpdate]
    events: list[EventDraft]
    metrics: list[MetricDraft]
    validations: list[ValidationDraft]
    status: JobStatus | None = None

    def __bool__(self) -> bool:
        return bool(self.steps or self.events or self.metrics or self.validations or self.status)


class Journal:
    """Collects what the engine says; writes it once a second and at the borders of stages."""

    def __init__(self, store: LeaseStore, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._draft = Draft({}, [], [], [])
        self._written_at = time.monotonic()
        self._due = False
        self._garbage = 0
        self._stage: StageName | None = None
        self._spans = StageSpans()
        self.done = False
        self.error: ErrorMessage | None = None

    def take(self, line: bytes) -> None:
        """Note one line of the engine's."""
        match parse(line):
            case None:
                self._note_garbage()
            case DoneMessage():
                self.done = True
            case ErrorMessage() as error:
                self.error = error
            case StageMessage() as stage:
                self._take_stage(stage)
            case ProgressMessage() as progress:
                self._update(
                    progress.stage, done=progress.done, total=progress.total, unit=progress.unit
                )
            case MetricMessage() as metric:
                self._draft.metrics.append(
                    MetricDraft(metric.stage, metric.step, dict(metric.values))
                )
            case ValidatedMessage() as validated:
                draft = ValidationDraft(validated.param, validated.findings())
                self._draft.validations.append(draft)
            case TextMessage() as text:
                data = {} if text.stage is None else {"stage": text.stage.value}
                self._draft.events.append(EventDraft(text.text, level=text.level, data=data))

    def say(self, event: EventDraft) -> None:
        """Add an event of the supervisor's own."""
        self._draft.events.append(event)

    def set_status(self, status: JobStatus) -> None:
        """Set the job's status with the next write."""
        self._draft.status = status

    def fail_stage(self) -> None:
        """The stage that was running when the engine gave up is the one that failed."""
        if self._stage is not None:
            self._update(self._stage, status=StepStatus.FAILED)

    def flush_if_due(self) -> None:
        """Like `flush`, but a database that is away for a while costs nothing: it is tried again.

        Once it is away for longer than the lease, the heartbeat ends the attempt.
        """
        if not self._due and time.monotonic() - self._written_at < FLUSH_S:
            return
        try:
            self.flush()
        except LeaseLost:
            raise
        except Exception as error:  # whatever the driver raises, the lease decides
            log.warning("progress_not_written", error=repr(error))

    def flush(self) -> None:
        """Write everything in one transaction; raises `LeaseLost`."""
        self._due, self._written_at = False, time.monotonic()
        draft = self._draft
        if draft:
            self._store.record(
                self._claim,
                status=draft.status,
                steps=list(draft.steps.values()),
                events=draft.events,
                metrics=draft.metrics,
                validations=draft.validations,
            )
            self._draft = Draft({}, [], [], [])

    def close(self) -> None:
        """End the spans of stages that the engine left unfinished."""
        self._spans.abandon()

    def _take_stage(self, message: StageMessage) -> None:
        status = StepStatus(message.status)
        self._update(message.stage, status=status, reused=message.reused)
        self._stage = message.stage if status is StepStatus.RUNNING else None
        if status is StepStatus.RUNNING:
            self._spans.begin(message.stage.value)
        else:
            self._spans.end(message.stage.value, reused=bool(message.reused))
        if status is StepStatus.RUNNING and message.stage is not StageName.INGEST:
            self._draft.status = JobStatus.RUNNING
        self.say(_stage_event(message))
        self._due = True

    def _update(self, stage: StageName, **changes: Any) -> None:
        known = {name: value for name, value in changes.items() if value is not None}
        before = self._draft.steps.pop(stage, StepUpdate(stage))
        self._draft.steps[stage] = replace(before, **known)

    def _note_garbage(self) -> None:
        self._garbage += 1
        if self._garbage == 1:
            text = "the engine wrote a line that is no message of its protocol; it was ignored"
            self.say(EventDraft(text, level="warn"))


def _stage_event(message: StageMessage) -> EventDraft:
    data: dict[str, Any] = {"stage": message.stage.value, "status": message.status}
    if message.status == "running":
        return EventDraft(f"{message.stage} started", type="stage", data=data)
    seconds, reused = message.seconds or 0.0, bool(message.reused)
    how = "reused from an earlier run" if reused else f"finished in {seconds:.1f} s"
    data |= {"seconds": seconds, "reused": reused}
    return EventDraft(f"{message.stage} {how}", type="stage", data=data)
