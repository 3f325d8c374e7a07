import re

import pytest

from tests.api.world import assert_problem

ROUTES = [
    (method.upper(), path)
    for path, methods in {
        "/v1/files": ["get", "post"],
        "/v1/files/{id}": ["get", "delete"],
        "/v1/files/{id}/content": ["get"],
        "/v1/models": ["get"],
        "/v1/models/tiny": ["get"],
        "/v1/defense/jobs": ["get", "post"],
        "/v1/defense/jobs/{id}": ["get"],
        "/v1/defense/jobs/{id}/cancel": ["post"],
        "/v1/defense/jobs/{id}/events": ["get"],
        "/v1/defense/jobs/{id}/metrics": ["get"],
        "/v1/defense/jobs/{id}/artifacts": ["get"],
        "/v1/defense/jobs/{id}/artifacts/x": ["get"],
        "/v1/defense/jobs/{id}/report": ["get"],
        "/v1/webhook_endpoints": ["get", "post"],
        "/v1/webhook_endpoints/{id}": ["get", "patch", "delete"],
        "/v1/webhook_endpoints/{id}/rotate_secret": ["post"],
        "/v1/webhook_endpoints/{id}/deliveries": ["get"],
        "/v1/webhook_endpoints/{id}/deliveries/x/redeliver": ["post"],
        "/metrics": ["get"],
    }.items()
    for method in methods
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", [None, "Bearer ", "Bearer disp_x_y", "Basic YTpi"])
def test_no_route_opens_without_a_key(api, method, path, header):
    headers = {} if header is None else {"Authorization": header}
    del api.client.headers["Authorization"]
    answer = api.client.request(method, path.replace("{id}", "job_" + "0" * 32), headers=headers)
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_routes_above_are_all_there_are(api):
    paths = api.client.get("/openapi.json").json()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    named = {
        (method, path.replace("tiny", "{id}").replace("/x", "/{name}")) for method, path in ROUTES
    }
    plain = {
        (method, re.sub(r"\{(file|job|model|endpoint)_id\}", "{id}", path))
        for method, path in served
    }
    plain = {(method, path.replace("{delivery_id}", "{name}")) for method, path in plain}
    assert plain == named | {("GET", "/livez"), ("GET", "/readyz")}


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
