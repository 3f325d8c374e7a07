"""All routes of the gateway, read from its own OpenAPI document; a new route is walked unasked."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from api.app import create_app
from api.settings import GatewaySettings
from tests.api.world import Api

OPEN = {"/livez", "/readyz"}
SHARED = {"model_id"}
UPLOAD = {"bytes": 1, "filename": "x", "mime_type": "application/zip", "purpose": "fine-tune"}
BODIES = {
    "PATCH /v1/webhook_endpoints/{endpoint_id}": {"json": {"description": "x"}},
    "POST /v1/uploads/{upload_id}/complete": {"json": {}},
    "POST /v1/uploads/{upload_id}/part_urls": {"json": {"numbers": [1]}},
    "POST /v1/uploads/{upload_id}/parts": {"files": {"data": b"x"}},
}
"""What to send where a route reads a body before it looks for its object."""
LISTS = {
    "GET /v1/api_keys",
    "GET /v1/defense/jobs",
    "GET /v1/files",
    "GET /v1/fine_tuning/jobs",
    "GET /v1/webhook_endpoints",
}
"""What shows a tenant its own objects."""
REFERS = {
    "POST /v1/defense/jobs": ("training_file", "checkpoint_file", "webhook"),
    "POST /v1/fine_tuning/jobs": (
        "training_file",
        "validation_file",
        "checkpoint_file",
        "webhook",
    ),
}
"""Fields of a new object that name an older one, which must be the same tenant's."""
OF_NOBODY = {
    "GET /metrics",
    "GET /v1/models",
    "GET /v1/models/{model_id}",
    "GET /v1/signing_key",
    "POST /v1/api_keys",
    "POST /v1/files",
    "POST /v1/uploads",
    "POST /v1/webhook_endpoints",
}
"""What names no object of a tenant's, neither in its path nor in its body nor in its answer."""


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    facts: dict[str, Any]

    @property
    def parameters(self) -> set[str]:
        return {piece.split("}")[0] for piece in self.path.split("{")[1:]}

    @property
    def of_one_tenant(self) -> bool:
        """Whether the path names an object that has an owner."""
        return bool(self.parameters - SHARED)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def ask(self, api: Api, ids: dict[str, str], headers: dict[str, str]) -> Any:
        body: dict[str, Any] = BODIES.get(str(self), {})
        return api.client.request(self.method, self.url(ids), headers=headers, **body)

    def url(self, ids: dict[str, str]) -> str:
        url = self.path
        for name in self.parameters:
            url = url.replace(f"{{{name}}}", quote(ids[name], safe=""))
        return url


def openapi_document() -> dict[str, Any]:
    settings = GatewaySettings(database_url="sqlite://", artifacts_url="memory:")
    return create_app(settings).openapi()


def operations() -> list[Operation]:
    return [
        Operation(method.upper(), path, facts)
        for path, methods in openapi_document()["paths"].items()
        for method, facts in methods.items()
    ]


def keyed_operations() -> list[Operation]:
    return [operation for operation in operations() if operation.path not in OPEN]


def ids_of(api: Api) -> dict[str, str]:
    """Real objects of the tenant `acme`, by the names that paths have for them.

    A route with a parameter that is not here fails the walks: add what it names.
    """
    hook = api.client.post("/v1/webhook_endpoints", json={"url": "https://hooks.example/"}).json()
    job_id = api.finished_job()
    [delivery] = api.gateway.jobs.list_deliveries("acme", hook["id"]).data
    return {
        "upload_id": api.client.post("/v1/uploads", json=UPLOAD).json()["id"],
        "number": "1",
        "endpoint_id": hook["id"],
        "delivery_id": delivery.id,
        "file_id": api.validated_file(),
        "job_id": job_id,
        "key_id": api.gateway.jobs.create_key("acme", ("read",)).key.id,
        "model_id": "tiny",
        "name": "report.json",
        "sample_id": "s0",
    }
