import structlog
from fastapi import APIRouter

from api import app as application
from api import health
from tests.api.walk import LISTS, OF_NOBODY, REFERS, ids_of, keyed_operations
from tests.api.world import assert_problem

KEYED = keyed_operations()
ROUTERS = [health.router, *(r for r in vars(application).values() if isinstance(r, APIRouter))]
SCOPES = ("read", "submit", "admin")
NOBODY = {
    "file_id": "file_" + "0" * 32,
    "upload_id": "upload_" + "0" * 32,
    "number": "1",
    "endpoint_id": "whe_" + "0" * 32,
    "delivery_id": "whd_" + "0" * 32,
    "job_id": "job_" + "0" * 32,
    "key_id": "0" * 32,
    "model_id": "nobody",
    "name": "x",
    "sample_id": "x",
}
GENTLE_FIRST = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def test_no_route_opens_without_a_key(api):
    del api.client.headers["Authorization"]
    for operation in KEYED:
        for header in (None, "Bearer ", "Bearer disp_x_y", "Basic YTpi"):
            headers = {} if header is None else {"Authorization": header}
            answer = api.client.request(operation.method, operation.url(NOBODY), headers=headers)
            assert_problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer", operation


def test_no_route_opens_for_a_key_without_scopes(api):
    headers = api.key("acme")
    for operation in KEYED:
        answer = api.client.request(operation.method, operation.url(NOBODY), headers=headers)
        assert_problem(answer, 403, "forbidden")


def test_no_object_exists_for_another_tenant(signing_api):
    """The owner meets no 404 at the same URLs, so it is the tenant that makes the difference."""
    api = signing_api
    owned = [operation for operation in KEYED if operation.of_one_tenant]
    owned.sort(key=lambda operation: GENTLE_FIRST.index(operation.method))
    stranger, owner = api.stranger(*SCOPES), api.key("acme", *SCOPES)
    ids = ids_of(api)
    for operation in owned:
        answer = operation.ask(api, ids, stranger)
        assert_problem(answer, 404, "not_found")
    for operation in owned:
        answer = operation.ask(api, ids, owner)
        assert answer.status_code != 404, operation
    assert len(owned) >= 20


def test_every_route_is_walked_by_another_tenant_or_known_to_name_no_ones_object():
    """A new route is not known: add it to the lists of `walk.py`, or name its parameters there."""
    rest = {str(operation) for operation in KEYED if not operation.of_one_tenant}
    assert rest == LISTS | set(REFERS) | OF_NOBODY


def test_no_route_but_those_of_pages_is_hidden_from_the_walk():
    """What the document does not show is not walked; `test_pages.py` walks the pages."""
    hidden = {
        route.path
        for router in ROUTERS
        for route in router.routes
        if not (router.include_in_schema and route.include_in_schema)
    }
    assert hidden and all(path == "/" or path.startswith("/ui/") for path in hidden)


def test_no_list_shows_an_object_of_another_tenant(api):
    owner = api.key("acme", *SCOPES)
    stranger = api.stranger(*SCOPES)
    ids_of(api)
    for operation in KEYED:
        if str(operation) in LISTS:
            path = operation.path
            mine = {item["id"] for item in api.client.get(path, headers=owner).json()["data"]}
            theirs = {item["id"] for item in api.client.get(path, headers=stranger).json()["data"]}
            assert mine and not mine & theirs, operation


def test_no_new_object_may_name_one_of_another_tenant(api):
    """Each field in turn, the others being the stranger's own."""
    stranger = api.stranger(*SCOPES)
    ids = ids_of(api)
    foreign = {
        "training_file": ids["file_id"],
        "validation_file": ids["file_id"],
        "checkpoint_file": api.checkpoint_id(),
        "webhook": ids["endpoint_id"],
    }
    own = api.upload(**stranger).json()["id"]
    for operation in KEYED:
        for field in REFERS.get(str(operation), ()):
            body = {"model": "tiny", "training_file": own} | {field: foreign[field]}
            answer = api.client.post(operation.path, json=body, headers=stranger)
            code = "webhook_not_found" if field == "webhook" else "file_not_found"
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, code), field


def test_a_key_that_may_only_read_submits_nothing(api):
    reader = api.stranger("read")
    assert api.client.get("/v1/files", headers=reader).status_code == 200
    assert_problem(api.upload(**reader), 403, "forbidden")
    job_id = api.job_id()
    answer = api.client.post(f"/v1/defense/jobs/{job_id}/cancel", headers=reader)
    assert_problem(answer, 403, "forbidden")


def test_a_revoked_key_opens_nothing_more(api):
    token = api.client.headers["Authorization"].removeprefix("Bearer ")
    api.gateway.jobs.revoke_key(api.gateway.jobs.authenticate(token).id)
    assert_problem(api.client.get("/v1/models"), 401, "unauthenticated")


def test_what_is_logged_while_a_request_is_served_tells_whose_it_is(api, monkeypatch):
    told = []

    def list_models(store):
        told.append(structlog.contextvars.get_contextvars())
        return []

    monkeypatch.setattr(type(api.gateway.jobs), "list_models", list_models)
    api.client.get("/v1/models", headers={"X-Request-ID": "r1"})
    api.client.get("/v1/models", headers=api.stranger())
    assert [one["tenant"] for one in told] == ["acme", "globex"]
    assert told[0]["request_id"] == "r1"
