"""Webhook endpoints and the deliveries that wait in the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.webhooks import DeliveryStatus, WebhookDelivery, WebhookEndpoint, WebhookEvent
from schemas.wire import Page
from storage.interfaces.order import Order


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


class WebhookStore(Protocol):
    """Webhook endpoints, and the outbox that is written together with a job's last status."""

    def add_endpoint(self, tenant: str, draft: EndpointDraft) -> WebhookEndpoint:
        """Create an endpoint, or raise `TooManyWebhooks`."""
        ...

    def get_endpoint(self, tenant: str, endpoint_id: str) -> WebhookEndpoint:
        """Return an endpoint or raise `NotFound`."""
        ...

    def list_endpoints(
        self,
        tenant: str,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[WebhookEndpoint]:
        """Return a page of endpoints by id; `before` alone gives the page that ends there."""
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
