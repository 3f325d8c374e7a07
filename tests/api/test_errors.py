"""The list of codes is closed, and the same in the code, the OpenAPI document and the docs."""

import re
from pathlib import Path

from api.errors import STATUSES
from schemas.errors import ErrorCode
from tests.api.walk import keyed_operations, operations
from tests.api.world import assert_problem

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
ROW = re.compile(r"^\| `(?P<code>[a-z_]+)` \| (?P<status>[0-9]{3}|job) \| .{20,} \|$", re.M)
OF_A_JOB = {
    ErrorCode.ARCHIVE_BOMB,
    ErrorCode.ARCHIVE_MALFORMED,
    ErrorCode.ARCHIVE_UNSAFE_MEMBER,
    ErrorCode.IMAGE_FORMAT,
    ErrorCode.IMAGE_MALFORMED,
    ErrorCode.IMAGE_TOO_LARGE,
    ErrorCode.PICKLE_REFUSED,
    ErrorCode.REMOTE_CODE_REFUSED,
    ErrorCode.TRAILING_DATA,
    ErrorCode.INVALID_MODEL,
    ErrorCode.ENGINE_ERROR,
    ErrorCode.WORKER_LOST,
}
OF_NO_ROUTE = {ErrorCode.METHOD_NOT_ALLOWED, ErrorCode.INTERNAL_ERROR}
KEYED_STATUSES = {"401", "403", "429", "503"}


def documented():
    for operation in operations():
        for status, answer in operation.facts["responses"].items():
            if status >= "4" and operation.path.startswith("/v1"):
                yield operation, status, answer


def test_every_documented_error_is_a_problem_with_codes_of_its_status():
    for operation, status, answer in documented():
        assert list(answer["content"]) == ["application/problem+json"], operation
        schema = answer["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}, operation
        codes = answer["x-error-codes"]
        assert codes and len(codes) == len(set(codes)), operation
        assert {str(STATUSES[ErrorCode(code)]) for code in codes} == {status}, operation


def test_every_code_but_those_of_jobs_is_documented_at_a_route():
    found = {code for _, _, answer in documented() for code in answer["x-error-codes"]}
    assert found == set(ErrorCode) - OF_A_JOB - OF_NO_ROUTE == set(STATUSES) - OF_NO_ROUTE


def test_every_route_with_a_key_documents_what_a_key_can_meet():
    for operation in keyed_operations():
        assert set(operation.facts["responses"]) >= KEYED_STATUSES, operation
        assert not operation.of_one_tenant or "404" in operation.facts["responses"], operation


def test_the_docs_list_every_code_once_with_its_status():
    rows = [(match["code"], match["status"]) for match in ROW.finditer(DOCS.read_text())]
    expected = [(code.value, str(STATUSES.get(code, "job"))) for code in ErrorCode]
    assert sorted(rows) == sorted(expected)


def test_what_meets_no_route_is_a_problem_too(api):
    assert_problem(api.client.get("/nothing"), 404, "not_found")
    assert_problem(api.client.patch("/v1/defense/jobs"), 405, "method_not_allowed")
    assert_problem(api.client.post("/livez"), 405, "method_not_allowed")
    assert api.client.patch("/v1/defense/jobs").headers["allow"] == "GET, POST"
    assert api.client.patch(f"/v1/files/file_{0:032x}").headers["allow"] == "DELETE, GET"
    assert_problem(api.client.get("/v1/defense/jobs/%00"), 404, "not_found")


def test_a_conflict_of_statuses_is_a_problem(api):
    job_id = api.job_id()
    answer = api.client.post(f"/v1/defense/jobs/{job_id}/retry")
    assert_problem(answer, 409, "job_status_conflict")
    assert_problem(api.client.delete(f"/v1/defense/jobs/{job_id}"), 409, "job_status_conflict")
