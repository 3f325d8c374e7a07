"""What the gateway and the workers may ask of a store, a file for each noun.

Times are Unix seconds on the database's clock, never a worker's.
"""

from storage.idempotency import Idempotency
from storage.interfaces.artifacts import ArtifactStore, StoredBlob
from storage.interfaces.files import FileBlob, FileDraft, FileStore, Findings
from storage.interfaces.jobs import CreatedJob, GatewayStore
from storage.interfaces.keys import ApiKey, IssuedKey, KeyStore
from storage.interfaces.leases import (
    Claim,
    Directive,
    EventDraft,
    JobInputs,
    LeaseStore,
    MetricDraft,
    Reconciled,
    StepUpdate,
    ValidationDraft,
)
from storage.interfaces.models import ModelRecord, ModelStore
from storage.interfaces.order import Order
from storage.interfaces.readings import FileClaim, ReadingStore
from storage.interfaces.samples import SampleEntry, SampleStore, SampleWriter, Shown
from storage.interfaces.shards import Shard, ShardClaim, ShardStore, Turn
from storage.interfaces.statistics import Statistics, StatisticsStore
from storage.interfaces.store import JobStore, WorkerStore
from storage.interfaces.webhooks import (
    DueDelivery,
    EndpointChanges,
    EndpointDraft,
    Receipt,
    SigningSecrets,
    WebhookStore,
)

__all__ = [
    "ApiKey",
    "ArtifactStore",
    "Claim",
    "CreatedJob",
    "Directive",
    "DueDelivery",
    "EndpointChanges",
    "EndpointDraft",
    "EventDraft",
    "FileBlob",
    "FileClaim",
    "FileDraft",
    "FileStore",
    "Findings",
    "GatewayStore",
    "Idempotency",
    "IssuedKey",
    "JobInputs",
    "JobStore",
    "KeyStore",
    "LeaseStore",
    "MetricDraft",
    "ModelRecord",
    "ModelStore",
    "Order",
    "ReadingStore",
    "Receipt",
    "Reconciled",
    "SampleEntry",
    "SampleStore",
    "SampleWriter",
    "Shard",
    "ShardClaim",
    "ShardStore",
    "Shown",
    "SigningSecrets",
    "Statistics",
    "StatisticsStore",
    "StepUpdate",
    "StoredBlob",
    "Turn",
    "ValidationDraft",
    "WebhookStore",
    "WorkerStore",
]
