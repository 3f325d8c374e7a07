"""What every request may reach: the stores and the queue."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.queue import JobQueue
from api.rates import RateLimit
from storage.interfaces import ArtifactStore, JobStore


@dataclass(frozen=True)
class Gateway:
    """The parts that services are given."""

    jobs: JobStore
    artifacts: ArtifactStore
    queue: JobQueue
    rates: RateLimit
    max_unfinished_jobs: int
    upload_ttl_s: float


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


AnyGateway = Annotated[Gateway, Depends(_gateway)]
