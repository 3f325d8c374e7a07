"""All that is asked of the job store, put together."""

from typing import Protocol

from storage.interfaces.files import FileStore
from storage.interfaces.jobs import GatewayStore
from storage.interfaces.keys import KeyStore
from storage.interfaces.leases import LeaseStore
from storage.interfaces.models import ModelStore
from storage.interfaces.readings import ReadingStore
from storage.interfaces.samples import SampleStore, SampleWriter
from storage.interfaces.shards import ShardStore
from storage.interfaces.statistics import StatisticsStore
from storage.interfaces.webhooks import WebhookStore
from storage.uploads import UploadStore


class WorkerStore(LeaseStore, ShardStore, SampleWriter, ReadingStore, Protocol):
    """Jobs, their shards and samples, and unread files, as a worker sees them."""


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
