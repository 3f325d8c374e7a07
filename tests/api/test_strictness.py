import json

import pytest

from tests.api.world import assert_problem

JOBS = "/v1/defense/jobs"


def send(api, text, path=JOBS):
    headers = {"Content-Type": "application/json"}
    return api.client.post(path, content=text, headers=headers)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"seed": 1', '"seed": 1, "seed": 2', "'seed' is there twice"),
        ('"a": "b"', '"a": "b", "a": "c"', "'a' is there twice"),
        ('"seed": 1', '"seed": NaN', "NaN is no number"),
        ('"seed": 1', '"seed": -Infinity', "-Infinity is no number"),
        ('"seed": 1', '"seed": ' + "[" * 10_000, "nested too deep"),
        ('"seed": 1', '"seed": 1' + "0" * 5000, "a number too long"),
    ],
)
def test_a_body_that_two_readers_could_take_differently_is_no_json(api, old, new, said):
    body = {"model": "tiny", "training_file": api.file_id(), "seed": 1, "metadata": {"a": "b"}}
    text = json.dumps(body)
    assert send(api, text).status_code == 201
    answer = send(api, text.replace(old, new, 1))
    assert_problem(answer, 400, "bad_request")
    assert said in answer.json()["detail"]


def test_every_route_that_reads_json_reads_it_strictly(api):
    for path in ("/v1/uploads", "/v1/webhook_endpoints", "/v1/api_keys", "/v1/fine_tuning/jobs"):
        headers = api.key("acme", "read", "submit", "admin")
        headers |= {"Content-Type": "application/json"}
        answer = api.client.post(path, content='{"a": 1, "a": 1}', headers=headers)
        assert_problem(answer, 400, "bad_request")
