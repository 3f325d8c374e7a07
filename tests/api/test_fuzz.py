"""Requests that schemathesis makes up from the OpenAPI document, against the gateway in process.

Half of what it makes up fits the document and has to be accepted, the rest must be refused as
documented. Made-up ids would all meet 404, so those that fit are replaced by ids of real objects;
what the document cannot say (which files exist, which fields go together) is put right likewise.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection
from schemathesis.transport.serialization import Binary
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import GatewaySettings
from schemas.requests import METHOD_KINDS
from storage import migrate
from storage.interfaces import ModelRecord
from tests.api.conftest import SEED
from tests.api.walk import UPLOAD, ids_of, openapi_document, operations
from tests.api.world import Api, safetensors, zip_archive

LONG = settings.get_current_profile_name() == "long"
CASES_OF_ONE_ROUTE = 200 if LONG else 20
CASES = 2000
UNLIMITED = 10**9
PARTS = (
    ParameterLocation.PATH,
    ParameterLocation.QUERY,
    ParameterLocation.HEADER,
    ParameterLocation.BODY,
)
MODELS = {"diffusion": "tiny", "autoregressive": "tiny-causal"}
FILE_FIELDS = ("triggered_file", "clean_file")


@dataclass
class Target:
    """A gateway with objects of every kind, and what was tried on it."""

    api: Api
    app: Callable
    headers: dict[str, str]
    ids: dict[str, str]
    tried: Counter = field(default_factory=Counter)
    accepted: Counter = field(default_factory=Counter)
    keys: count = field(default_factory=count)

    def aim(self, case) -> None:
        """Put real ids where made-up ones fit the document."""
        if fits(case, ParameterLocation.PATH):
            for name in case.path_parameters or {}:
                case.path_parameters[name] = self.object_for(case, name)
        if fits(case, ParameterLocation.HEADER) and "Idempotency-Key" in (case.headers or {}):
            case.headers["Idempotency-Key"] = f"key-{next(self.keys)}"
        if fits(case, ParameterLocation.BODY) and isinstance(case.body, dict):
            self.correct(case)
        if fits(case, ParameterLocation.BODY) and case.method == "PUT":
            case.body = Binary(b"x")
        if fits(case, ParameterLocation.HEADER) and case.method == "PUT":
            (case.headers or {}).pop("content-digest", None)

    def object_for(self, case, name):
        """Use up a new object where a call may change or end it."""
        gateway, changing = self.api.gateway, case.method in ("POST", "DELETE")
        if name == "job_id" and changing:
            return self.used_up(case)
        if name == "file_id" and changing:
            return self.api.file_id()
        if name == "upload_id" and case.method in ("POST", "PUT"):
            return self.upload_for(case)
        if name == "endpoint_id" and case.method == "DELETE":
            return self.spare_endpoint()
        if name == "key_id" and changing:
            return gateway.jobs.create_key("acme", ("read",)).key.id
        return self.ids[name]

    def upload_for(self, case):
        content = zip_archive() if case.path.endswith("/complete") else b"x"
        announced = UPLOAD | {"bytes": len(content)}
        upload_id = self.api.client.post("/v1/uploads", json=announced).json()["id"]
        if case.path.endswith("/complete"):
            self.api.client.put(f"/v1/uploads/{upload_id}/parts/1", content=content)
        return upload_id

    def spare_endpoint(self):
        """One that no other route is aimed at; the tenant may not have ever more of them."""
        found = self.api.gateway.jobs.list_endpoints("acme", limit=2).data
        spare = [each.id for each in found if each.id != self.ids["endpoint_id"]]
        if spare:
            return spare[0]
        hook = {"url": "https://hooks.example/"}
        return self.api.client.post("/v1/webhook_endpoints", json=hook).json()["id"]

    def used_up(self, case):
        if case.method == "DELETE" or case.path.endswith("/retry"):
            return self.api.failed_job()
        return self.api.job_id(training_file=self.ids["file_id"])

    def correct(self, case) -> None:
        """Make a body that fits the document one that names what exists."""
        case.body = body = in_whole_numbers(case.body)
        file_id = self.ids["file_id"]
        if case.path == "/v1/files":
            content = safetensors() if body["purpose"] == "checkpoint" else zip_archive()
            case.body = {"file": Binary(content), "purpose": body["purpose"]}
        if case.path.endswith("/complete"):
            case.body = body = {}
        if body.get("url") is not None:
            body["url"] = "https://example.com/hook"
        if body.get("webhook") is not None:
            body["webhook"] = self.ids["endpoint_id"]
        if "training_file" not in body:
            return
        method = (body.get("method") or {}).get("type", "disp")
        body |= {"model": MODELS[METHOD_KINDS.get(method, "diffusion")], "training_file": file_id}
        if body.get("model_revision") is not None:
            body["model_revision"] = "r1"
        if body.get("checkpoint_file") is not None:
            body["checkpoint_file"] = file_id
        if body.get("stages") is not None:
            body["stages"] = sorted({*body["stages"], "detect", "purify", "retrain"})
        if body.get("validation_file") is not None:
            body["validation_file"] = file_id
            body.pop("evaluation", None)
        if body.get("method") is not None:
            body.pop("hyperparameters", None)
        if isinstance(body.get("evaluation"), dict):
            body["evaluation"] = self.whole(body["evaluation"])

    def whole(self, evaluation):
        wanted = {name: self.ids["file_id"] for name in FILE_FIELDS if evaluation.get(name)}
        if evaluation.get("success") is None:
            wanted.pop("triggered_file", None)
        elif "triggered_file" in wanted:
            wanted["success"] = evaluation["success"]
        return wanted


def in_whole_numbers(value):
    """Write 1.0 as 1: JSON Schema calls both integers, and this service only the second."""
    if isinstance(value, dict):
        return {name: in_whole_numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [in_whole_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fits(case, location) -> bool:
    """Whether a part of a case was made up to fit the document."""
    made = case.meta.components.get(location) if case.meta else None
    return made is None or made.mode is GenerationMode.POSITIVE


@schemathesis.check
def error_code_is_documented(ctx, response, case):
    """An error has one of the codes that its route lists for its status."""
    if response.status_code < 400 or response.status_code == 405:
        return
    answers = case.operation.definition.raw["responses"]
    codes = answers[str(response.status_code)].get("x-error-codes")
    code = response.json()["error"]["code"]
    assert codes is None or code in codes, f"{code} is not among {codes}"


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    url = f"sqlite:///{folder}/jobs.sqlite"
    migrate.upgrade(url)
    app = create_app(
        GatewaySettings(
            database_url=url,
            artifacts_url=f"file://{folder}/artifacts",
            max_requests_per_minute=UNLIMITED,
            max_unfinished_jobs=UNLIMITED,
            signing_key=SEED,
        )
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        gateway = app.state.gateway
        for kind, name in MODELS.items():
            record = ModelRecord(name, "family", "r1", "/secret/path", kind=kind)
            gateway.jobs.register_model(record)
        token = gateway.jobs.issue_key("acme", ("read", "submit", "admin", "metrics"))
        client.headers["Authorization"] = f"Bearer {token}"
        api = Api(client, gateway)
        headers = {"Authorization": f"Bearer {token}"}
        yield Target(api, without_lifespan(app), headers, ids_of(api))


def without_lifespan(app):
    """The same gateway for schemathesis, which would start it a second time."""

    async def served(scope, receive, send):
        if scope["type"] == "http":
            await app(scope, receive, send)

    return served


document = schemathesis.openapi.from_dict(openapi_document())
document.config.generation.update(with_security_parameters=False, database="none")


@document.parametrize()
@settings(
    max_examples=CASES_OF_ONE_ROUTE,
    deadline=None,
    derandomize=not LONG,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_no_request_that_can_be_made_up_breaks_the_gateway(case, target):
    case.operation.app = case.operation.schema.app = target.app
    fitted = all(fits(case, location) for location in PARTS)
    target.aim(case)
    response = case.call_and_validate(
        "http://testserver",
        headers=target.headers,
        # Schemathesis judges anew what was put right, and takes an archive for no string.
        excluded_checks=[negative_data_rejection] if fitted else [],
    )
    target.tried[case.operation.label] += 1
    target.accepted[case.operation.label] += response.status_code < 300


def test_the_requests_were_many_and_every_route_has_accepted_some(target):
    labels = {str(operation) for operation in operations()}
    assert set(target.tried) == labels
    assert {label for label in labels if not target.accepted[label]} == set()
    assert target.tried.total() >= CASES
