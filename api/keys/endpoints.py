"""`/v1/api_keys`.

A creation takes no Idempotency-Key: to answer it again, the secret would have to be kept. A key
whose answer was lost is in the list, and is revoked by its id.
"""

from fastapi import APIRouter

from api.access import Administrator, KeyIdInPath
from api.answers import KEYED, refusals
from api.gateway import AnyGateway
from api.keys import service
from api.strictness import StrictRoute
from schemas.keys import ApiKeyCreate, ApiKeyDeleted, ApiKeyFacts, ApiKeyRotate, NewApiKey
from schemas.wire import Page

router = APIRouter(
    prefix="/v1/api_keys", tags=["API keys"], responses=refusals(*KEYED), route_class=StrictRoute
)


@router.post("", status_code=201, responses=refusals(400, 408, 413))
def create_key(gateway: AnyGateway, tenant: Administrator, body: ApiKeyCreate) -> NewApiKey:
    """Issue a key of this tenant; its full text is in this answer and nowhere else."""
    return service.new(gateway.jobs.create_key(tenant, body.scopes))


@router.get("")
def list_keys(gateway: AnyGateway, tenant: Administrator) -> Page[ApiKeyFacts]:
    """List this tenant's keys, those that have ended too."""
    return service.page(gateway.jobs.list_keys(tenant))


@router.delete("/{key_id}", responses=refusals(404))
def revoke_key(gateway: AnyGateway, tenant: Administrator, key_id: KeyIdInPath) -> ApiKeyDeleted:
    """End a key at once."""
    gateway.jobs.revoke_key(key_id, tenant)
    return ApiKeyDeleted(id=key_id)


@router.post("/{key_id}/rotate", status_code=201, responses=refusals(400, 404, 408, 413))
def rotate_key(
    gateway: AnyGateway,
    tenant: Administrator,
    key_id: KeyIdInPath,
    body: ApiKeyRotate | None = None,
) -> NewApiKey:
    """Issue a key with the same scopes; the old one ends after its grace, a day if none is said."""
    grace_s = (body or ApiKeyRotate()).grace_s
    return service.new(gateway.jobs.rotate_key(key_id, grace_s=grace_s, tenant=tenant))
