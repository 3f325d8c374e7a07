import gzip

import pytest

from schemas.jobs import DataFault
from storage.interfaces import Findings, ValidationDraft
from tests.api.conftest import MAX_UPLOAD_BYTES
from tests.api.world import assert_problem, safetensors, sha256, tar_archive, zip_archive

FAULT = DataFault(where="data.json, line 1", code="invalid_dataset", reason="turn 0 is empty")


@pytest.mark.parametrize(
    "data", [zip_archive(), tar_archive(), tar_archive("w:gz")], ids=["zip", "tar", "tar.gz"]
)
@pytest.mark.parametrize("purpose", ["fine-tune", "evaluation"])
def test_an_archive_is_stored_and_comes_back_as_it_was(api, data, purpose):
    response = api.upload(data, purpose)
    file = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/files/{file['id']}"
    assert (file["object"], file["purpose"], file["bytes"]) == ("file", purpose, len(data))
    assert (file["filename"], file["sha256"]) == ("data.zip", sha256(data))
    assert api.client.get(f"/v1/files/{file['id']}").json() == file
    content = api.client.get(f"/v1/files/{file['id']}/content")
    assert content.content == data
    assert content.headers["etag"] == f'"sha256-{sha256(data)}"'
    assert content.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"PK\x05\x06" + bytes(18), b"\x80\x04\x95", gzip.compress(b"x" * 600, mtime=0),
     b"\x1f\x8b broken", b"x" + zip_archive(), bytes(1024), b"7z\xbc\xaf\x27\x1c"],
)  # fmt: skip
def test_what_is_neither_zip_nor_tar_is_refused_and_not_kept(api, data):
    assert_problem(api.upload(data), 415, "unsupported_format")
    assert api.client.get("/v1/files").json()["data"] == []


def test_an_upload_names_what_its_form_lacks(api):
    wrong_purpose = api.upload(purpose="assistants")
    assert_problem(wrong_purpose, 422, "validation_error", "/purpose")
    no_file = api.client.post("/v1/files", data={"purpose": "fine-tune"})
    assert_problem(no_file, 422, "validation_error", "/file")
    assert no_file.json()["errors"][0]["in"] == "body"


def test_a_broken_multipart_body_is_a_bad_request(api):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = api.client.post("/v1/files", content=b"--x\r\nbroken", headers=headers)
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_a_body_over_the_limit_is_refused_by_its_announced_length(api):
    data = zip_archive(b"x" * MAX_UPLOAD_BYTES)
    assert_problem(api.upload(data), 413, "payload_too_large")
    announced = {"content-length": "9" * 5000, "content-type": "multipart/form-data; boundary=x"}
    response = api.client.post("/v1/files", content=b"", headers=announced)
    assert_problem(response, 413, "payload_too_large")


@pytest.mark.parametrize("path", ["/v1/files", "/v1/defense/jobs"])
def test_a_body_over_the_limit_is_refused_by_its_real_length(api, path):
    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(20):
            yield b"y" * (MAX_UPLOAD_BYTES // 10)

    kinds = {"/v1/files": "multipart/form-data; boundary=x", "/v1/defense/jobs": "application/json"}
    headers = {"Content-Type": kinds[path]}
    response = api.client.post(path, content=endless(), headers=headers)
    assert "content-length" not in response.request.headers
    assert_problem(response, 413, "payload_too_large")


def test_the_key_is_judged_before_the_body(api):
    data = zip_archive(b"x" * MAX_UPLOAD_BYTES)
    assert_problem(api.upload(data, Authorization="Bearer no"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("../../etc/passwd", "passwd"), ("C:\\data\\a.zip", "a.zip"), ("é\u202e.zip", "é.zip")],
)
def test_a_filename_is_only_a_name(api, sent, kept):
    form = {"file": (sent, zip_archive())}
    response = api.client.post("/v1/files", files=form, data={"purpose": "fine-tune"})
    assert response.json()["filename"] == kept


def test_files_are_listed_by_purpose_in_pages(api):
    wanted = [api.upload(purpose="evaluation").json()["id"] for _ in range(3)]
    api.upload(purpose="fine-tune")
    query = {"purpose": "evaluation", "limit": 2}
    first = api.client.get("/v1/files", params=query).json()
    query["after"] = first["last_id"]
    rest = api.client.get("/v1/files", params=query).json()
    assert [file["id"] for file in first["data"] + rest["data"]] == wanted[::-1]
    assert (first["object"], first["has_more"], rest["has_more"]) == ("list", True, False)


def test_a_deleted_file_is_gone_with_its_bytes(api):
    file_id = api.file_id()
    key = api.gateway.jobs.file_blob("acme", file_id).key
    answer = api.client.delete(f"/v1/files/{file_id}")
    assert answer.json() == {"id": file_id, "object": "file", "deleted": True}
    assert not api.gateway.artifacts.exists(key)
    assert_problem(api.client.get(f"/v1/files/{file_id}"), 404, "not_found")


def test_a_files_validation_is_what_the_last_job_found_in_it(api):
    file_id = api.file_id()
    path = f"/v1/files/{file_id}/validation"
    assert_problem(api.client.get(path), 409, "file_not_validated")
    for usable in (2, 1):
        job_id = api.job_id(training_file=file_id, validation="strict")
        claim = api.gateway.jobs.claim("worker", lease_s=60.0, job_id=job_id)
        found = ValidationDraft("training_file", Findings(3, usable, 0, 3 - usable, [FAULT]))
        missing = ValidationDraft("clean_file", Findings(1, 1))  # the job has no such file
        api.gateway.jobs.record(claim, validations=[found, missing])
        answer = api.client.get(path).json()
        assert (answer["job_id"], answer["mode"]) == (job_id, "strict")
        assert (answer["records"], answer["usable"]) == (3, usable)
        assert answer["faults"] == [FAULT.model_dump()] and answer["error"] is None
    assert_problem(api.client.get(path, headers=api.stranger()), 404, "not_found")


def test_an_upload_waits_to_be_read_and_then_tells_what_was_found(api):
    file = api.upload().json()
    assert (file["status"], file["status_details"]) == ("uploaded", None)
    path = f"/v1/files/{file['id']}"
    claim = api.gateway.jobs.claim_file("reader", lease_s=60.0)
    assert api.client.get(path).json()["status"] == "processing"
    assert_problem(api.client.get(f"{path}/validation"), 409, "file_not_validated")
    api.gateway.jobs.settle_file(claim, Findings(3, 2, 0, 1, [FAULT]))
    assert api.client.get(path).json()["status"] == "processed"
    found = api.client.get(f"{path}/validation").json()
    assert (found["job_id"], found["mode"], found["usable"]) == (None, "quarantine", 2)


def test_a_file_of_which_nothing_can_be_used_says_why_and_no_job_takes_it(api):
    file_id = api.refused_file()
    file = api.client.get(f"/v1/files/{file_id}").json()
    assert (file["status"], file["status_details"]) == ("error", "it unpacks to too much")
    refusal = api.client.get(f"/v1/files/{file_id}/validation").json()["error"]
    assert refusal == {"code": "archive_bomb", "message": "it unpacks to too much"}
    for route in ("/v1/defense/jobs", "/v1/fine_tuning/jobs"):
        answer = api.client.post(route, json={"model": "tiny", "training_file": file_id})
        assert_problem(answer, 422, "invalid_dataset", "/training_file")
    assert api.client.delete(f"/v1/files/{file_id}").status_code == 200


def test_a_checkpoint_is_processed_at_once_and_has_no_validation(api):
    file = api.upload(safetensors(), "checkpoint").json()
    assert file["status"] == "processed"
    answer = api.client.get(f"/v1/files/{file['id']}/validation")
    assert_problem(answer, 404, "not_a_dataset")


@pytest.mark.parametrize("path", ["/v1/files", "/v1/webhook_endpoints"])
def test_lists_go_backwards_too(api, path):
    for _ in range(3):
        api.file_id()
        api.client.post("/v1/webhook_endpoints", json={"url": "https://hooks.example/"})
    ids = [item["id"] for item in api.client.get(path).json()["data"]]
    page = api.client.get(path, params={"before": ids[2], "limit": 1}).json()
    assert ([item["id"] for item in page["data"]], page["has_more"]) == (ids[1:2], True)
    assert_problem(api.client.get(path, params={"before": "x"}), 422, "validation_error", "/before")


def test_a_file_in_use_is_not_deleted(api):
    file_id = api.file_id()
    job_id = api.job_id(training_file=file_id)
    assert_problem(api.client.delete(f"/v1/files/{file_id}"), 409, "file_in_use")
    api.client.post(f"/v1/defense/jobs/{job_id}/cancel")
    assert api.client.delete(f"/v1/files/{file_id}").status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_another_tenants_file_is_not_found(api, method):
    response = api.client.request(method, f"/v1/files/{api.file_id()}", headers=api.stranger())
    assert_problem(response, 404, "not_found")


@pytest.mark.parametrize("file_id", ["file_x", "%00", "..%2F..", "file_" + "g" * 32])
def test_an_id_that_cannot_be_one_is_not_found(api, file_id):
    assert_problem(api.client.get(f"/v1/files/{file_id}"), 404, "not_found")


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04" + bytes(60),
        b"\x80\x04\x95" + bytes(60),
        b"",
        b"{}",
        (1 << 62).to_bytes(8, "little") + b"{",
    ],
    ids=["torch's zip", "pickle", "empty", "short", "header of 2^62 bytes"],
)
def test_a_checkpoint_is_safetensors_or_refused(api, content):
    assert_problem(api.upload(content, "checkpoint"), 415, "unsafe_format")


def test_a_checkpoint_is_kept_and_is_no_dataset(api):
    answer = api.upload(safetensors(), "checkpoint")
    assert (answer.status_code, answer.json()["purpose"]) == (201, "checkpoint")
    content = api.client.get(f"/v1/files/{answer.json()['id']}/content").content
    assert content == safetensors()
    assert_problem(api.upload(safetensors()), 415, "unsupported_format")
    found = api.client.get("/v1/files", params={"purpose": "checkpoint"}).json()["data"]
    assert [file["id"] for file in found] == [answer.json()["id"]]


def test_an_idempotency_key_gives_one_file_whose_bytes_are_kept_once(api):
    key = {"Idempotency-Key": "f-1"}
    first, again = api.upload(**key), api.upload(**key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert_problem(
        api.upload(zip_archive(b"[1]"), **key), 422, "idempotency_key_reused", "Idempotency-Key"
    )
    assert len(list(api.gateway.artifacts.keys("tenants/acme/"))) == 1
    assert len(api.client.get("/v1/files").json()["data"]) == 1
