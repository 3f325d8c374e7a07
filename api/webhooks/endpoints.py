"""`/v1/webhook_endpoints`."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from api.access import Reader, Submitter, id_named
from api.answers import KEYED, refusals
from api.gateway import AnyGateway
from api.strictness import StrictRoute
from api.webhooks import service
from schemas.errors import ErrorCode
from schemas.webhooks import (
    DeliveryStatus,
    SecretRotate,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEndpointCreate,
    WebhookEndpointDeleted,
    WebhookEndpointSecret,
    WebhookEndpointUpdate,
)
from schemas.wire import Page
from storage.interfaces import Order

router = APIRouter(
    prefix="/v1/webhook_endpoints",
    tags=["webhooks"],
    responses=refusals(*KEYED),
    route_class=StrictRoute,
)
EndpointCursor = Annotated[str | None, Query(pattern=r"^whe_[0-9a-f]{32}$")]
EndpointIdInPath = Annotated[str, Depends(id_named("endpoint_id", re.compile(r"whe_[0-9a-f]{32}")))]
DeliveryIdInPath = Annotated[str, Depends(id_named("delivery_id", re.compile(r"whd_[0-9a-f]{32}")))]


@router.post(
    "",
    status_code=201,
    responses=refusals(400, 408, 413, ErrorCode.LIMIT_REACHED, ErrorCode.URL_REFUSED),
)
def create_endpoint(
    gateway: AnyGateway, tenant: Submitter, body: WebhookEndpointCreate, response: Response
) -> WebhookEndpointSecret:
    """Create an endpoint; the answer alone shows its secret."""
    created = service.create(gateway, tenant, body)
    response.headers["Location"] = f"/v1/webhook_endpoints/{created.id}"
    return created


@router.get("")
def list_endpoints(
    gateway: AnyGateway,
    tenant: Reader,
    after: EndpointCursor = None,
    before: EndpointCursor = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
) -> Page[WebhookEndpoint]:
    """List endpoints, newest first; `before` alone gives the page that ends there."""
    return gateway.jobs.list_endpoints(tenant, after=after, before=before, limit=limit, order=order)


@router.get("/{endpoint_id}", responses=refusals(404))
def get_endpoint(
    gateway: AnyGateway, tenant: Reader, endpoint_id: EndpointIdInPath
) -> WebhookEndpoint:
    """Return an endpoint, without its secret."""
    return gateway.jobs.get_endpoint(tenant, endpoint_id)


@router.patch("/{endpoint_id}", responses=refusals(400, 404, 408, 413, ErrorCode.URL_REFUSED))
def update_endpoint(
    gateway: AnyGateway,
    tenant: Submitter,
    endpoint_id: EndpointIdInPath,
    body: WebhookEndpointUpdate,
) -> WebhookEndpoint:
    """Change an endpoint; `enabled` false drops what it had still to send."""
    return service.update(gateway, tenant, endpoint_id, body)


@router.delete("/{endpoint_id}", responses=refusals(404))
def delete_endpoint(
    gateway: AnyGateway, tenant: Submitter, endpoint_id: EndpointIdInPath
) -> WebhookEndpointDeleted:
    """Delete an endpoint and the record of its deliveries."""
    return service.delete(gateway, tenant, endpoint_id)


@router.post("/{endpoint_id}/rotate_secret", responses=refusals(400, 404, 408, 413))
def rotate_secret(
    gateway: AnyGateway,
    tenant: Submitter,
    endpoint_id: EndpointIdInPath,
    body: SecretRotate | None = None,
) -> WebhookEndpointSecret:
    """Replace the secret; messages carry both signatures until the old one's grace is over."""
    return service.rotate_secret(gateway, tenant, endpoint_id, body or SecretRotate())


@router.get("/{endpoint_id}/deliveries", responses=refusals(404))
def list_deliveries(
    gateway: AnyGateway,
    tenant: Reader,
    endpoint_id: EndpointIdInPath,
    status: DeliveryStatus | None = None,
    after: Annotated[str | None, Query(pattern=r"^whd_[0-9a-f]{32}$")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
) -> Page[WebhookDelivery]:
    """List deliveries, newest first; they are kept for a month after they ended."""
    return gateway.jobs.list_deliveries(
        tenant, endpoint_id, status=status, after=after, limit=limit, order=order
    )


@router.post(
    "/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses=refusals(404),
)
def redeliver(
    gateway: AnyGateway,
    tenant: Submitter,
    endpoint_id: EndpointIdInPath,
    delivery_id: DeliveryIdInPath,
) -> WebhookDelivery:
    """Send a message again as soon as may be, under its old `webhook-id`."""
    return gateway.jobs.redeliver(tenant, endpoint_id, delivery_id)
