"""What every request may reach: the stores, the queue and the way out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from api.queue import JobQueue
from api.rates import RateLimit
from storage.interfaces import ArtifactStore, JobStore
from storage.webhooks.egress import Egress

if TYPE_CHECKING:
    from api.signatures.service import Signer


@dataclass(frozen=True)
class Gateway:
    """The parts that services are given."""

    jobs: JobStore
    artifacts: ArtifactStore
    queue: JobQueue
    upload_ttl_s: float
    egress: Egress
    rates: RateLimit
    max_unfinished_jobs: int
    signer: "Signer | None" = None


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


AnyGateway = Annotated[Gateway, Depends(_gateway)]
