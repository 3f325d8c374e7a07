import subprocess
import sys

from schemas.errors import ErrorCode
from storage.errors import StorageError, StoreAway
from tests.api.world import assert_problem

HEAVY = {"torch", "transformers", "disp_engine", "workers"}
IMPORT = f"""
import sys
import api.app
found = {HEAVY!r} & {{name.partition(".")[0] for name in sys.modules}}
sys.exit(f"api.app imports {{found}}" if found else 0)
"""


def test_the_gateway_imports_neither_torch_nor_the_engine():
    ended = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_an_unknown_route_or_method_is_a_problem_too(api):
    assert_problem(api.client.get("/v1/nothing"), 404, "not_found")
    assert_problem(api.client.get("/v1/files/"), 404, "not_found")
    assert_problem(api.client.put("/v1/files"), 405, "method_not_allowed")
    assert "GET" in api.client.put("/v1/models").headers["allow"]


def test_a_fault_of_ours_says_nothing_of_its_inside(api, monkeypatch):
    def broken(*_args):
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(type(api.gateway.jobs), "list_models", broken)
    answer = api.client.get("/v1/models")
    assert_problem(answer, 500, "internal_error")
    assert "hunter2" not in answer.text


def test_a_database_that_is_away_is_unavailable_and_no_fault(api, monkeypatch):
    def locked(*_args):
        raise StoreAway()

    monkeypatch.setattr(type(api.gateway.jobs), "list_models", locked)
    assert_problem(api.client.get("/v1/models"), 503, "unavailable")


def test_what_cannot_be_a_models_id_never_reaches_the_database(api, monkeypatch):
    def asked(*_args):
        raise AssertionError("the database was asked")

    monkeypatch.setattr(type(api.gateway.jobs), "get_model", asked)
    assert_problem(api.client.get("/v1/models/a%00b"), 404, "not_found")


def test_models_are_listed_without_their_paths(api):
    listed = api.client.get("/v1/models")
    assert [model["id"] for model in listed.json()["data"]] == ["tiny"]
    assert "secret" not in listed.text
    assert api.client.get("/v1/models/tiny").json() == listed.json()["data"][0]
    assert_problem(api.client.get("/v1/models/other"), 404, "not_found")


def test_openapi_publishes_the_report_and_the_problem(api):
    document = api.client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"Report", "Rate", "Problem", "Job", "Manifest"} <= set(schemas)
    assert schemas["ErrorCode"]["enum"] == [code.value for code in ErrorCode]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if path.startswith("/v1") and status >= "4":
                    assert list(answer["content"]) == ["application/problem+json"], path


def test_the_process_lives_and_is_ready(api):
    del api.client.headers["Authorization"]
    assert api.client.get("/livez").json()["status"] == "ok"
    ready = api.client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (
        200,
        {"jobs": "ok", "artifacts": "ok", "broker": "ok"},
    )


def test_a_store_that_cannot_be_written_makes_it_unready(api, tmp_path):
    (tmp_path / "artifacts").rename(tmp_path / "away")
    (tmp_path / "artifacts").write_text("not a directory")
    ready = api.client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["artifacts"]) == (503, "unavailable")
    assert api.client.get("/livez").status_code == 200


def test_every_refusal_of_the_stores_has_an_http_answer():
    from api.errors import CODES

    never_reach_a_client = {"MigrationMissing", "LeaseLost", "DeliveryLost", "AlreadyExists"}
    refusals = {kind for kind in StorageError.__subclasses__()}
    assert {kind.__name__ for kind in refusals - set(CODES)} == never_reach_a_client
