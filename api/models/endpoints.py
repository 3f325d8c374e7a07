"""`/v1/models`."""

from fastapi import APIRouter

from api.access import ModelIdInPath, Reader
from api.answers import refusals
from api.gateway import AnyGateway
from schemas.models import Model
from schemas.wire import Page

router = APIRouter(prefix="/v1/models", tags=["models"], responses=refusals(401, 403, 429, 503))


@router.get("")
def list_models(gateway: AnyGateway, _: Reader) -> Page[Model]:
    """List the models that jobs may name."""
    models = gateway.jobs.list_models()
    first, last = (models[0].id, models[-1].id) if models else (None, None)
    return Page(data=models, has_more=False, first_id=first, last_id=last)


@router.get("/{model_id}", responses=refusals(404))
def get_model(gateway: AnyGateway, _: Reader, model_id: ModelIdInPath) -> Model:
    """Return one model."""
    return gateway.jobs.get_model(model_id)
