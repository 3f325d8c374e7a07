"""Webhooks on the wire: endpoints, deliveries and the message itself (Standard Webhooks)."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.jobs import JobStatus
from schemas.wire import Request, Resource


class WebhookEvent(StrEnum):
    """What an endpoint may be told of: the ways in which a job ends."""

    SUCCEEDED = "defense.job.succeeded"
    FAILED = "defense.job.failed"
    CANCELLED = "defense.job.cancelled"


EVENT_OF_STATUS = {
    JobStatus.SUCCEEDED: WebhookEvent.SUCCEEDED,
    JobStatus.FAILED: WebhookEvent.FAILED,
    JobStatus.CANCELLED: WebhookEvent.CANCELLED,
}
Url = Annotated[str, StringConstraints(min_length=8, max_length=2048, pattern=r"^[\x21-\x7e]+$")]
Description = Annotated[str, StringConstraints(max_length=256)]
EventName = Annotated[WebhookEvent, Field(strict=False)]
Events = Annotated[list[EventName], Field(min_length=1, max_length=len(WebhookEvent))]


class WebhookEndpointCreate(Request):
    """The body of `POST /v1/webhook_endpoints`; without `events` it is told of all."""

    url: Url
    events: Events = Field(default_factory=lambda: list(WebhookEvent))
    description: Description = ""


class WebhookEndpointUpdate(Request):
    """The body of `PATCH /v1/webhook_endpoints/{id}`; what is left out stays as it is."""

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: bool | None = None


class SecretRotate(Request):
    """The body of `POST …/rotate_secret`: for how long the old secret signs as well, in seconds."""

    grace_s: Annotated[int, Field(ge=0, le=7 * 24 * 3600)] = 24 * 3600


class WebhookEndpoint(Resource):
    """Where webhooks go; `disabled_reason` is `gone` after the receiver answered 410."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    events: list[WebhookEvent]
    description: str
    enabled: bool
    disabled_reason: Literal["gone", "by_owner"] | None = None
    created_at: int


class WebhookEndpointSecret(WebhookEndpoint):
    """An endpoint with the secret that signs from now on, `whsec_…`: it is shown this once."""

    secret: str
    previous_secret_expires_at: int | None = None


class WebhookEndpointDeleted(Resource):
    """The answer to a deletion."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    deleted: Literal[True] = True


class DeliveryStatus(StrEnum):
    """Whether a message has arrived; `pending` ones are tried (again) at `due_at`."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class WebhookDelivery(Resource):
    """One message to one endpoint; `message_id` is its `webhook-id`, the same in every attempt."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    endpoint_id: str
    message_id: str
    type: WebhookEvent
    job_id: str
    status: DeliveryStatus
    attempts: int = Field(ge=0)
    created_at: int
    due_at: int | None = None
    finished_at: int | None = None
    last_status_code: int | None = None
    last_error: str | None = None


class EventSubject(Resource):
    """Which job the message is about; ask the service for the rest."""

    id: str
    object: Literal["defense.job"] = "defense.job"
    status: JobStatus


class WebhookMessage(Resource):
    """The body of a webhook, in the shape of OpenAI's."""

    id: str
    object: Literal["event"] = "event"
    type: WebhookEvent
    created_at: int
    data: EventSubject
