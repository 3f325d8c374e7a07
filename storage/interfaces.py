"""What the gateway and the workers may ask of a store.

Times are Unix seconds on the database's clock, never a worker's. A `Claim` is a fencing token:
every worker-side call names its attempt, and raises `LeaseLost` once another attempt, the
reconciler or a verdict has taken the job away.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from schemas.files import File, FilePurpose, FileRefusal, FileValidation
from schemas.jobs import DataFault, Event, Job, JobError, JobStatus, Metric, StageName, StepStatus
from schemas.models import Model
from schemas.requests import DefenseJobCreate
from schemas.webhooks import DeliveryStatus, WebhookDelivery, WebhookEndpoint, WebhookEvent
from schemas.wire import Page
from storage.uploads import PartStore, UploadStore

Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class ApiKey:
    """A key's owner; the secret itself is not kept, only its SHA-256.

    A key with `expires_at` ends then, of itself; one with `revoked_at` has ended.
    """

    id: str
    tenant: str
    scopes: tuple[str, ...]
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True)
class IssuedKey:
    """A new key; `token` is its full text, which cannot be had again."""

    key: ApiKey
    token: str


@dataclass(frozen=True)
class FileBlob:
    """An uploaded file and where its bytes lie."""

    id: str
    filename: str
    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FileDraft:
    """An upload whose bytes are stored and which is to be given a row."""

    id: str
    filename: str
    purpose: FilePurpose
    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ModelRecord:
    """A registered model; `path` is a local folder and is never shown to clients."""

    id: str
    family: str
    revision: str
    path: str
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Idempotency:
    """An Idempotency-Key header and the SHA-256 of the body that came with it."""

    key: str
    body_sha256: str


@dataclass(frozen=True)
class CreatedJob:
    """A job as first answered; `replayed` when the Idempotency-Key had created it earlier."""

    job: Job
    replayed: bool


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
    records: int
    usable: int
    repeated_ids: int
    fault_count: int
    faults: Sequence[DataFault] = ()
    error: FileRefusal | None = None


@dataclass(frozen=True)
class Reconciled:
    """What a reconciliation found; `hints` are job ids whose hint is to be sent (again)."""

    hints: tuple[str, ...] = ()
    requeued: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class EndpointDraft:
    """A webhook endpoint that is to be created; `secret` is `whsec_` and base64."""

    url: str
    events: Sequence[WebhookEvent]
    description: str
    secret: str


@dataclass(frozen=True)
class EndpointChanges:
    """What is to change in a webhook endpoint; None leaves a field as it is."""

    url: str | None = None
    events: Sequence[WebhookEvent] | None = None
    description: str | None = None
    enabled: bool | None = None


@dataclass(frozen=True, repr=False)
class SigningSecrets:
    """The secret that signs, and the one before it while its time of grace lasts."""

    current: str
    previous: str | None = None


@dataclass(frozen=True)
class DueDelivery:
    """The right to send one message once; `attempt` fences out senders whose lease has ended."""

    id: str
    endpoint_id: str
    message_id: str
    attempt: int
    failures: int
    url: str
    body: str
    secrets: SigningSecrets


@dataclass(frozen=True)
class Receipt:
    """What became of an attempt: `error` None when it arrived, `gone` when the answer was 410.

    Without `retry_after_s` a failure is final; `gone` disables the endpoint besides.
    """

    status_code: int | None = None
    error: str | None = None
    gone: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Statistics:
    """How many jobs there are in each status; how long the oldest of each queue waits, seconds."""

    jobs: Mapping[JobStatus, int]
    oldest_age_s: Mapping[str, float]


@dataclass(frozen=True)
class Shard:
    """Samples `first` to `last` (excluded) of a stage that is kept in `folder`."""

    folder: str
    first: int
    last: int


@dataclass(frozen=True)
class ShardClaim:
    """The right of a worker to help with a job's shards, for as long as it renews its leases."""

    job_id: str
    tenant: str
    owner: str


@dataclass(frozen=True)
class Turn:
    """What there is to do in a folder: a shard to work on, or None; `unfinished` counts the rest.

    `done` counts the samples of shards that are stored.
    """

    shard: Shard | None
    unfinished: int
    done: int


class Shown(StrEnum):
    """Which samples a list shows."""

    ALL = "all"
    FLAGGED = "flagged"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REWRITTEN = "rewritten"
    KEPT = "kept"
    REMOVED = "removed"
    QUARANTINED = "quarantined"
    PASSED_THROUGH = "passed_through"


@dataclass(frozen=True)
class SampleEntry:
    """What a list shows of a sample, and where its line lies in the job's `samples.jsonl`.

    `said` and `says` are the beginnings of its first response, before and after.
    """

    position: int
    sample_id: str
    status: str
    verdict: str | None
    flagged: bool
    score: float | None
    start: int
    bytes: int
    said: str
    says: str


class KeyStore(Protocol):
    """API keys: `disp_<id>_<secret>`."""

    def issue_key(self, tenant: str, scopes: Sequence[str] = ("read", "submit")) -> str:
        """Create a key and return its full text, which cannot be had again."""
        ...

    def create_key(self, tenant: str, scopes: Sequence[str]) -> IssuedKey:
        """Like `issue_key`, with the key's facts."""
        ...

    def list_keys(self, tenant: str | None = None) -> Sequence[ApiKey]:
        """Return a tenant's keys, or everybody's, oldest first, those that ended too."""
        ...

    def rotate_key(self, key_id: str, *, grace_s: float, tenant: str | None = None) -> IssuedKey:
        """Issue a key with the same owner and scopes; the old one ends `grace_s` from now.

        Raises `NotFound` for a key that has ended, or is not of the `tenant` given.
        """
        ...

    def authenticate(self, token: str) -> ApiKey | None:
        """Return the key's owner; None if it is malformed, unknown or revoked."""
        ...

    def revoke_key(self, key_id: str, tenant: str | None = None) -> None:
        """Make a key worthless from now on; raise `NotFound` if it is not of the tenant given."""
        ...


class FileStore(Protocol):
    """Rows of uploaded files; their bytes are in the artifact store."""

    def add_file(self, tenant: str, draft: FileDraft) -> File:
        """Give stored bytes a row."""
        ...

    def get_file(self, tenant: str, file_id: str) -> File:
        """Return a file or raise `NotFound`."""
        ...

    def file_blob(self, tenant: str, file_id: str) -> FileBlob:
        """Return where a file's bytes lie or raise `NotFound`."""
        ...

    def file_validation(self, tenant: str, file_id: str) -> FileValidation | None:
        """Return what the last job that read a file has found, None before; or raise `NotFound`."""
        ...

    def list_files(
        self,
        tenant: str,
        *,
        purpose: FilePurpose | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[File]:
        """Return a page of files by id, that is, by time of creation."""
        ...

    def delete_file(self, tenant: str, file_id: str) -> FileBlob:
        """Remove the row and return what to delete.

        Raises `FileInUse`, `NotFound`, or `FileIsResult` for what a job has published.
        """
        ...


class ModelStore(Protocol):
    """The allow-list of models, the same for every tenant."""

    def register_model(self, model: ModelRecord) -> None:
        """Add a model, or replace the one with the same id."""
        ...

    def get_model(self, model_id: str) -> Model:
        """Return a model or raise `NotFound`."""
        ...

    def list_models(self) -> Sequence[Model]:
        """Return all models by id."""
        ...

    def list_model_records(self) -> Sequence[ModelRecord]:
        """Return all models by id, with the folders that workers read."""
        ...


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
        Raises `UnknownModel`, `UnknownFile`, `UnknownWebhook`, `IdempotencyKeyReused`,
        `IdempotencyInFlight`, or `QuotaExceeded` when the tenant has `max_unfinished` jobs already.
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
        back as `hints`.
        """
        ...


class ShardStore(Protocol):
    """Shares of one job, worked on by several workers; whoever stores a shard first has won.

    The results of a shard are a function of the job alone, so a shard that two have worked on is
    no harm: leases only keep them from doing so for long.
    """

    def open_shards(self, claim: Claim, shards: Sequence[Shard]) -> None:
        """Offer shards, those apart that are there already; raises `LeaseLost`."""
        ...

    def find_help_wanted(self, owner: str, job_id: str | None = None) -> ShardClaim | None:
        """Return the oldest running job (or `job_id`, if it is one) with a shard to be taken."""
        ...

    def shard_inputs(self, claim: ShardClaim) -> JobInputs:
        """Return what the job works on, or raise `LeaseLost` when it is at work no more."""
        ...

    def take_shard(
        self, claim: ShardClaim, folder: str, *, lease_s: float, attempt: int | None = None
    ) -> Turn:
        """Lease the first shard of a folder that is open, or whose lease has ended.

        The job's own attempt gives its number: shards of its earlier attempts are then free.
        """
        ...

    def finish_shard(self, claim: ShardClaim, shard: Shard) -> None:
        """Say that the shard's files are stored; harmless when it is done, or gone."""
        ...

    def finished_shards(self, claim: ShardClaim) -> Sequence[Shard]:
        """Return all shards of the job whose files are stored."""
        ...

    def renew_shards(self, claim: ShardClaim, *, lease_s: float) -> Directive:
        """Extend the helper's leases; `LOST` once the job is at work no more."""
        ...

    def release_shards(self, claim: ShardClaim) -> None:
        """Let others take at once what this owner holds."""
        ...


class SampleWriter(Protocol):
    """The part of a `SampleStore` that a worker needs."""

    def index_samples(self, claim: Claim, entries: Iterable[SampleEntry]) -> None:
        """Write what lists show, in place of an earlier attempt's; raises `LeaseLost`."""
        ...


class WorkerStore(LeaseStore, ShardStore, SampleWriter, Protocol):
    """Jobs, their shards and their samples as a worker sees them."""


class SampleStore(SampleWriter, Protocol):
    """Samples of jobs that have ended, for lists; the whole truth is in `samples.jsonl`."""

    def list_sample_entries(
        self,
        tenant: str,
        job_id: str,
        *,
        shown: Shown = Shown.ALL,
        after: int | None = None,
        limit: int = 50,
    ) -> tuple[Sequence[SampleEntry], bool]:
        """Return up to `limit` entries, the most suspicious first, and whether there are more.

        `after` is the position of the last one seen.
        """
        ...

    def sample_neighbours(
        self, tenant: str, job_id: str, position: int
    ) -> tuple[int | None, int | None]:
        """Return the positions before and after one, in the order of the whole list."""
        ...

    def get_sample_entry(self, tenant: str, job_id: str, position: int) -> SampleEntry:
        """Return the entry at a position of the job's file, or raise `NotFound`."""
        ...


class WebhookStore(Protocol):
    """Webhook endpoints, and the outbox that is written together with a job's last status."""

    def add_endpoint(self, tenant: str, draft: EndpointDraft) -> WebhookEndpoint:
        """Create an endpoint, or raise `TooManyWebhooks`."""
        ...

    def get_endpoint(self, tenant: str, endpoint_id: str) -> WebhookEndpoint:
        """Return an endpoint or raise `NotFound`."""
        ...

    def list_endpoints(
        self, tenant: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
    ) -> Page[WebhookEndpoint]:
        """Return a page of endpoints by id, that is, by time of creation."""
        ...

    def update_endpoint(
        self, tenant: str, endpoint_id: str, changes: EndpointChanges
    ) -> WebhookEndpoint:
        """Change an endpoint; switching it off fails whatever it had still to send."""
        ...

    def delete_endpoint(self, tenant: str, endpoint_id: str) -> None:
        """Remove an endpoint with its deliveries, or raise `NotFound`."""
        ...

    def rotate_secret(
        self, tenant: str, endpoint_id: str, secret: str, *, grace_s: float
    ) -> tuple[WebhookEndpoint, float]:
        """Sign with `secret` from now on; the old one too until the returned time."""
        ...

    def list_deliveries(
        self,
        tenant: str,
        endpoint_id: str,
        *,
        status: DeliveryStatus | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[WebhookDelivery]:
        """Return a page of an endpoint's deliveries, or raise `NotFound`."""
        ...

    def redeliver(self, tenant: str, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
        """Make a delivery due now, with all attempts before it again; or raise `NotFound`."""
        ...

    def deliveries_due(self) -> bool:
        """Tell, without a lock, whether a sender would find anything to do."""
        ...

    def claim_delivery(self, *, lease_s: float) -> DueDelivery | None:
        """Take the delivery that has waited longest; of many senders one gets it.

        A sender that dies holds it up until its lease has ended.
        """
        ...

    def settle_delivery(self, due: DueDelivery, receipt: Receipt) -> None:
        """Write what became of an attempt, or raise `DeliveryLost` if it is another's by now."""
        ...

    def prune_deliveries(self) -> None:
        """Forget deliveries that ended a month ago."""
        ...


class StatisticsStore(Protocol):
    """Numbers for operators, over all tenants."""

    def now(self) -> float:
        """Return the database's clock in Unix seconds."""
        ...

    def statistics(self) -> Statistics:
        """Return the numbers as they are now."""
        ...


class JobStore(
    KeyStore,
    FileStore,
    UploadStore,
    ModelStore,
    GatewayStore,
    SampleStore,
    WorkerStore,
    WebhookStore,
    StatisticsStore,
    Protocol,
):
    """The whole truth about jobs."""

    def ping(self) -> None:
        """Write and roll back; raise if the database cannot be written."""
        ...

    def close(self) -> None:
        """Give back all connections."""
        ...


@dataclass(frozen=True)
class StoredBlob:
    """What was stored, as counted and hashed on the way in."""

    key: str
    bytes: int
    sha256: str


class ArtifactStore(Protocol):
    """Bytes by key; what a call has returned survives a power loss."""

    @property
    def parts(self) -> PartStore:
        """Where objects grow that arrive in parts."""
        ...

    def download_url(self, key: str, *, filename: str, media_type: str) -> str | None:
        """Return a URL that opens this object to anyone for a while; None if there are none."""
        ...

    def put_file(self, key: str, path: Path) -> StoredBlob:
        """Store a file's bytes without holding them in memory; replaces what was there."""
        ...

    def put_stream(self, key: str, chunks: Iterable[bytes]) -> StoredBlob:
        """Store chunks as they come; if the iterator raises, nothing is stored."""
        ...

    def create(self, key: str, data: bytes) -> StoredBlob:
        """Store bytes under a new key, or raise `AlreadyExists`.

        Of simultaneous callers one wins, unless the store is an S3 service that looks for the key
        only before it writes: there several may be told so, and one of theirs stays.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return all bytes or raise `NotFound`."""
        ...

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return the bytes from `start` in chunks, or raise `NotFound` at the call."""
        ...

    def size(self, key: str) -> int:
        """Return the length in bytes or raise `NotFound`."""
        ...

    def exists(self, key: str) -> bool:
        """Tell whether the key is there."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys below `prefix`, which ends at a `/`, in no order."""
        ...

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is no error."""
        ...
