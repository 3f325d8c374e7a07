"""Creating, changing and rotating webhook endpoints."""

from api.errors import UrlNotAllowed
from api.gateway import Gateway
from schemas.webhooks import (
    SecretRotate,
    WebhookEndpoint,
    WebhookEndpointCreate,
    WebhookEndpointDeleted,
    WebhookEndpointSecret,
    WebhookEndpointUpdate,
)
from storage.interfaces import EndpointChanges, EndpointDraft
from storage.webhooks.egress import UrlRefused
from storage.webhooks.signing import new_secret


def create(gateway: Gateway, tenant: str, request: WebhookEndpointCreate) -> WebhookEndpointSecret:
    """Create an endpoint with a fresh secret."""
    _require_allowed(gateway, request.url)
    secret = new_secret()
    draft = EndpointDraft(request.url, request.events, request.description, secret)
    return _with_secret(gateway.jobs.add_endpoint(tenant, draft), secret)


def update(
    gateway: Gateway, tenant: str, endpoint_id: str, request: WebhookEndpointUpdate
) -> WebhookEndpoint:
    """Change an endpoint."""
    if request.url is not None:
        _require_allowed(gateway, request.url)
    changes = EndpointChanges(**dict(request))
    return gateway.jobs.update_endpoint(tenant, endpoint_id, changes)


def delete(gateway: Gateway, tenant: str, endpoint_id: str) -> WebhookEndpointDeleted:
    """Remove an endpoint."""
    gateway.jobs.delete_endpoint(tenant, endpoint_id)
    return WebhookEndpointDeleted(id=endpoint_id)


def rotate_secret(
    gateway: Gateway, tenant: str, endpoint_id: str, request: SecretRotate
) -> WebhookEndpointSecret:
    """Give an endpoint a fresh secret; the old one signs as well for a while."""
    secret = new_secret()
    endpoint, until = gateway.jobs.rotate_secret(
        tenant, endpoint_id, secret, grace_s=request.grace_s
    )
    return _with_secret(endpoint, secret, int(until))


def _require_allowed(gateway: Gateway, url: str) -> None:
    try:
        gateway.egress.check(url)
    except UrlRefused as error:
        raise UrlNotAllowed() from error


def _with_secret(
    endpoint: WebhookEndpoint, secret: str, previous_until: int | None = None
) -> WebhookEndpointSecret:
    return WebhookEndpointSecret(
        **endpoint.model_dump(), secret=secret, previous_secret_expires_at=previous_until
    )
