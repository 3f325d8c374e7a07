"""The tables; times are Unix seconds on the database's clock."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Document = dict[str, Any]


class Base(DeclarativeBase):
    """Types of columns by the types of Python."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        Document: JSON,
        list[str]: JSON,
        float: Double,
        int: BigInteger,
        str: String(255),
    }


class KeyRow(Base):
    """An API key; the secret is kept as its SHA-256."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    sha256: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[float]
    revoked_at: Mapped[float | None]
    expires_at: Mapped[float | None]
    __table_args__ = (Index("api_keys_by_tenant", "tenant", "id"),)


class FileRow(Base):
    """An uploaded file, or one that the job `job_id` has published.

    `validation` is what was found when it was last read. While it is `uploaded` a hint is due at
    `hint_due_at`, while it is `processing` there is a lease; `losses` counts the readers that died.
    """

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    filename: Mapped[str]
    purpose: Mapped[str]
    key: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[float]
    job_id: Mapped[str | None]
    validation: Mapped[Document | None] = mapped_column(JSON(none_as_null=True))
    status: Mapped[str] = mapped_column(server_default="processed")
    status_details: Mapped[str | None] = mapped_column(Text)
    lease_owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    losses: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    hint_due_at: Mapped[float | None]
    __table_args__ = (
        Index("files_by_tenant", "tenant", "id"),
        Index("files_by_status", "status", "id"),
        Index("files_by_job", "job_id"),
    )


class UploadRow(Base):
    """A file that comes in parts; `swept_at` is when the leftovers of one that ended were gone."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    status: Mapped[str]
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    part_size: Mapped[int]
    sha256: Mapped[str | None]
    file_id: Mapped[str]
    key: Mapped[str] = mapped_column(Text)
    handle: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float]
    expires_at: Mapped[float]
    swept_at: Mapped[float | None]
    __table_args__ = (Index("uploads_by_status", "status", "expires_at"),)


class UploadPartRow(Base):
    """A part that is held; `tag` is what the artifact store calls it."""

    __tablename__ = "upload_parts"
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(unique=True)
    bytes: Mapped[int]
    sha256: Mapped[str | None]
    tag: Mapped[str]
    created_at: Mapped[float]


class ModelRow(Base):
    """A registered model."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(primary_key=True)
    family: Mapped[str]
    revision: Mapped[str]
    path: Mapped[str] = mapped_column(Text)
    defaults: Mapped[Document]
    created_at: Mapped[float]
    kind: Mapped[str] = mapped_column(server_default="diffusion")


class JobRow(Base):
    """A job and its lease; `losses` counts lost attempts in a row without progress.

    `claimed_at` is when the attempt at hand began; `worker_seconds` sums the attempts that ended.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    status: Mapped[str]
    stage: Mapped[str | None]
    request: Mapped[Document]
    model: Mapped[str]
    training_file: Mapped[str]
    triggered_file: Mapped[str | None]
    clean_file: Mapped[str | None]
    checkpoint_file: Mapped[str | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    retry_of: Mapped[str | None]
    claimed_at: Mapped[float | None]
    worker_seconds: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    lease_owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    manifest_key: Mapped[str | None] = mapped_column(Text)
    result: Mapped[Document | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[Document | None] = mapped_column(JSON(none_as_null=True))
    traceparent: Mapped[str | None]
    __table_args__ = (
        Index("jobs_by_tenant", "tenant", "id"),
        Index("jobs_by_tenant_status", "tenant", "status", "id"),
        Index("jobs_by_status", "status", "id"),
    )


class MetadataRow(Base):
    """One of the labels that a job's owner gave it, for finding the job by it."""

    __tablename__ = "job_metadata"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(String(512))


class SampleRow(Base):
    """Where a sample's line lies in its job's `samples.jsonl`, and what lists sort and show.

    `score` is UNSCORED where there is none; `back` is -`position`: both descend together.
    """

    __tablename__ = "samples"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    back: Mapped[int]
    sample_id: Mapped[str] = mapped_column(Text)
    status: Mapped[str]
    verdict: Mapped[str | None]
    flagged: Mapped[bool]
    score: Mapped[float]
    start: Mapped[int]
    bytes: Mapped[int]
    said: Mapped[str] = mapped_column(Text)
    says: Mapped[str] = mapped_column(Text)
    __table_args__ = (
        Index("samples_by_score", "job_id", "score", "back"),
        Index("samples_by_flag", "job_id", "flagged", "score", "back"),
        Index("samples_by_status", "job_id", "status", "score", "back"),
        Index("samples_by_verdict", "job_id", "verdict", "score", "back"),
    )


class StepRow(Base):
    """A stage of a job; `furthest` and `completed` remember the best of all attempts."""

    __tablename__ = "steps"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    status: Mapped[str]
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int | None]
    unit: Mapped[str | None]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    reused: Mapped[bool] = mapped_column(default=False)
    attempt: Mapped[int] = mapped_column(default=0)
    furthest: Mapped[int] = mapped_column(default=0)
    completed: Mapped[bool] = mapped_column(default=False)


class EventRow(Base):
    """An event, numbered within its job."""

    __tablename__ = "events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float]
    level: Mapped[str]
    type: Mapped[str]
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[Document]


class MetricRow(Base):
    """A training step's values; an attempt that repeats a step replaces them."""

    __tablename__ = "metrics"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    stage: Mapped[str]
    step: Mapped[int]
    values: Mapped[Document]
    created_at: Mapped[float]
    __table_args__ = (Index("metrics_by_step", "job_id", "stage", "step", unique=True),)


class IdempotencyRow(Base):
    """The first answer to an Idempotency-Key."""

    __tablename__ = "idempotency_keys"
    tenant: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_sha256: Mapped[str]
    response: Mapped[Document]
    created_at: Mapped[float]


class OutboxRow(Base):
    """A queued job whose hint is to be sent, again and again until a worker claims the job."""

    __tablename__ = "outbox"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    due_at: Mapped[float]


class WebhookEndpointRow(Base):
    """Where a tenant wants to be told; the previous secret signs until `previous_until`."""

    __tablename__ = "webhook_endpoints"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[str]]
    description: Mapped[str]
    disabled_reason: Mapped[str | None]
    secret: Mapped[str]
    previous_secret: Mapped[str | None]
    previous_until: Mapped[float | None]
    created_at: Mapped[float]
    __table_args__ = (Index("webhook_endpoints_by_tenant", "tenant", "id"),)


class WebhookDeliveryRow(Base):
    """A message to an endpoint; `attempts` is the fencing token of whoever sends it.

    `failures` counts the attempts in a row that failed since it was last (re)scheduled.
    """

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    message_id: Mapped[str]
    type: Mapped[str]
    job_id: Mapped[str]
    body: Mapped[str] = mapped_column(Text)
    status: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]
    due_at: Mapped[float | None]
    lease_until: Mapped[float | None]
    finished_at: Mapped[float | None]
    last_status_code: Mapped[int | None]
    last_error: Mapped[str | None]
    __table_args__ = (
        Index("webhook_deliveries_by_endpoint", "endpoint_id", "id"),
        Index("webhook_deliveries_by_due", "status", "due_at"),
    )


class ShardRow(Base):
    """Samples `first` to `last` (excluded) of a stage's folder: open, leased or done.

    `attempt` is set while the job's own attempt holds the shard: a later one may take it at once.
    """

    __tablename__ = "shards"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    folder: Mapped[str] = mapped_column(primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[int]
    status: Mapped[str]
    owner: Mapped[str | None]
    attempt: Mapped[int | None]
    lease_until: Mapped[float | None]
    __table_args__ = (Index("shards_by_status", "status", "job_id"),)
