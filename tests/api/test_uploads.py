import base64
import hashlib
import io
import zipfile
from dataclasses import replace
from random import Random

import httpx2
import pytest

from api.reconciler import Reconciler
from schemas.uploads import MIN_PART
from tests.api.world import assert_problem, safetensors, sha256, zip_archive

ABSENT = "upload_" + "0" * 32


def archive(size=MIN_PART + 1000):
    """A zip that does not compress and is longer than one part."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("data.json", "[]")
        target.writestr("noise.png", Random(0).randbytes(size))
    return buffer.getvalue()


DATA = archive()
PARTS = {1: DATA[:MIN_PART], 2: DATA[MIN_PART:]}


def begin(api, headers=None, **fields):
    body = {
        "bytes": len(DATA),
        "filename": "data.zip",
        "mime_type": "application/zip",
        "purpose": "fine-tune",
        "part_size": MIN_PART,
        **fields,
    }
    return api.client.post("/v1/uploads", json=body, headers=headers)


def put(api, upload_id, number, data, **headers):
    path = f"/v1/uploads/{upload_id}/parts/{number}"
    return api.client.put(path, content=data, headers=headers)


def complete(api, upload_id, **fields):
    return api.client.post(f"/v1/uploads/{upload_id}/complete", json=fields)


def content(api, file_id):
    """The bytes, from the gateway or from where it sends us."""
    answer = api.client.get(f"/v1/files/{file_id}/content", follow_redirects=False)
    if answer.status_code == 303:
        return httpx2.get(answer.headers["location"]).content
    return answer.content


def digest(data):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_parts_in_any_order_become_the_file(each_api):
    api = each_api
    created = begin(api, sha256=sha256(DATA))
    upload = created.json()
    assert created.headers["location"] == f"/v1/uploads/{upload['id']}"
    assert (upload["object"], upload["status"], upload["part_size"]) == (
        "upload",
        "pending",
        MIN_PART,
    )
    second = put(api, upload["id"], 2, PARTS[2], **{"content-digest": digest(PARTS[2])}).json()
    assert (second["object"], second["bytes"]) == ("upload.part", len(PARTS[2]))
    assert second["sha256"] == sha256(PARTS[2])
    put(api, upload["id"], 1, PARTS[1])
    held = api.client.get(f"/v1/uploads/{upload['id']}").json()["parts"]
    assert [part["number"] for part in held] == [1, 2]

    done = complete(api, upload["id"], md5=hashlib.md5(DATA).hexdigest()).json()
    assert (done["status"], done["file"]["bytes"]) == ("completed", len(DATA))
    assert done["file"]["sha256"] == sha256(DATA)
    assert complete(api, upload["id"]).json()["file"] == done["file"]
    assert content(api, done["file"]["id"]) == DATA


def test_parts_can_be_put_where_the_service_says(each_api):
    api = each_api
    upload_id = begin(api).json()["id"]
    answer = api.client.post(f"/v1/uploads/{upload_id}/part_urls", json={"numbers": [1, 2]})
    for given in answer.json()["data"]:
        data = PARTS[given["number"]]
        assert given["bytes"] == len(data)
        if given["url"].startswith("/"):
            assert api.client.put(given["url"], content=data).status_code == 200
        else:
            assert httpx2.put(given["url"], content=data + b"x").status_code == 403
            assert httpx2.put(given["url"], content=data).status_code == 200
    held = api.client.get(f"/v1/uploads/{upload_id}").json()["parts"]
    assert [(part["number"], part["bytes"]) for part in held] == [
        (number, len(data)) for number, data in PARTS.items()
    ]
    done = complete(api, upload_id, sha256=sha256(DATA), part_ids=[part["id"] for part in held])
    assert content(api, done.json()["file"]["id"]) == DATA


def test_form_parts_follow_one_another_as_they_come(each_api):
    api = each_api
    upload_id = begin(api).json()["id"]
    ids = [
        api.client.post(f"/v1/uploads/{upload_id}/parts", files={"data": data}).json()["id"]
        for data in PARTS.values()
    ]
    assert complete(api, upload_id, part_ids=ids[::-1]).json()["error"]["code"] == (
        "upload_incomplete"
    )
    done = complete(api, upload_id, part_ids=ids).json()
    assert content(api, done["file"]["id"]) == DATA


def test_local_parts_may_be_of_any_length(api):
    upload_id = begin(api).json()["id"]
    for start in range(0, len(DATA), 2_000_000):
        piece = DATA[start : start + 2_000_000]
        api.client.post(f"/v1/uploads/{upload_id}/parts", files={"data": piece})
    assert complete(api, upload_id).json()["file"]["sha256"] == sha256(DATA)


def test_a_part_is_the_same_however_often_it_is_sent_and_never_another(each_api):
    api = each_api
    upload_id = begin(api).json()["id"]
    first = put(api, upload_id, 2, PARTS[2]).json()
    assert put(api, upload_id, 2, PARTS[2]).json() == first
    assert_problem(put(api, upload_id, 2, b"other"), 409, "part_conflict")
    put(api, upload_id, 1, PARTS[1])
    assert complete(api, upload_id, sha256=sha256(DATA)).status_code == 200


def test_bytes_with_a_wrong_digest_are_not_held(each_api):
    api = each_api
    upload_id = begin(api).json()["id"]
    wrong = put(api, upload_id, 2, PARTS[2], **{"content-digest": digest(b"other")})
    assert_problem(wrong, 422, "digest_mismatch")
    assert api.client.get(f"/v1/uploads/{upload_id}").json()["parts"] == []
    other = put(api, upload_id, 2, PARTS[2], **{"content-digest": "md5=:AAAA:"})
    assert other.status_code == 200


@pytest.mark.parametrize("announced", ["upload", "sha256", "md5"])
def test_a_file_with_a_wrong_digest_ends_its_upload(each_api, announced):
    api = each_api
    upload = begin(api, **({"sha256": "0" * 64} if announced == "upload" else {})).json()
    for number, data in PARTS.items():
        put(api, upload["id"], number, data)
    wrong = {"sha256": {"sha256": "0" * 64}, "md5": {"md5": "0" * 32}, "upload": {}}[announced]
    assert_problem(complete(api, upload["id"], **wrong), 422, "digest_mismatch")
    assert api.client.get(f"/v1/uploads/{upload['id']}").json()["status"] == "cancelled"
    assert api.client.get("/v1/files").json()["data"] == []


def test_what_is_no_archive_does_not_become_a_file(each_api):
    api = each_api
    upload_id = begin(api, bytes=5).json()["id"]
    put(api, upload_id, 1, b"hello")
    key = api.gateway.jobs.get_upload("acme", upload_id).key
    assert_problem(complete(api, upload_id), 415, "unsupported_format")
    assert not api.gateway.artifacts.exists(key)


def test_an_upload_with_missing_parts_goes_on(each_api):
    api = each_api
    upload_id = begin(api).json()["id"]
    put(api, upload_id, 1, PARTS[1])
    assert_problem(complete(api, upload_id), 409, "upload_incomplete")
    put(api, upload_id, 2, PARTS[2])
    assert complete(api, upload_id).json()["status"] == "completed"


def test_a_cancelled_upload_takes_nothing_more(each_api):
    api = each_api
    upload_id = begin(api).json()["id"]
    put(api, upload_id, 1, PARTS[1])
    path = f"/v1/uploads/{upload_id}/cancel"
    assert api.client.post(path).json()["status"] == "cancelled"
    assert api.client.post(path).json()["parts"] == []
    assert_problem(put(api, upload_id, 2, PARTS[2]), 409, "upload_not_pending")
    assert_problem(complete(api, upload_id), 409, "upload_not_pending")
    urls = api.client.post(f"/v1/uploads/{upload_id}/part_urls", json={"numbers": [1]})
    assert_problem(urls, 409, "upload_not_pending")


def test_the_reconciler_forgets_what_has_expired(each_api):
    gateway = replace(each_api.gateway, upload_ttl_s=-1.0)
    each_api.client.app.state.gateway = gateway
    upload_id = begin(each_api).json()["id"]
    record = gateway.jobs.get_upload("acme", upload_id)
    Reconciler(gateway, period_s=1, max_losses=3).reconcile()
    assert each_api.client.get(f"/v1/uploads/{upload_id}").json()["status"] == "expired"
    assert gateway.artifacts.parts.held(record.key, record.handle) == ()
    assert gateway.jobs.abandoned_uploads() == []
    assert_problem(put(each_api, upload_id, 1, PARTS[1]), 409, "upload_not_pending")


def test_a_numbered_part_has_the_length_of_its_number(each_api):
    upload_id = begin(each_api).json()["id"]
    for number, data in ((1, PARTS[1][:-1]), (2, PARTS[2] + b"x"), (1, b"")):
        assert_problem(put(each_api, upload_id, number, data), 409, "upload_incomplete")
    assert_problem(put(each_api, upload_id, 3, b"x"), 404, "not_found")
    assert each_api.client.get(f"/v1/uploads/{upload_id}").json()["parts"] == []


def test_a_part_over_the_part_size_is_refused(each_api):
    upload_id = begin(each_api).json()["id"]
    answer = put(each_api, upload_id, 1, b"x" * (MIN_PART + 1))
    assert_problem(answer, 413, "payload_too_large")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"bytes": 0}, "/bytes"),
        ({"part_size": 1}, "/part_size"),
        ({"purpose": "assistants"}, "/purpose"),
        ({"sha256": "AB"}, "/sha256"),
    ],
)
def test_a_request_names_what_is_wrong_with_it(api, fields, param):
    assert_problem(begin(api, **fields), 422, "validation_error", param)


def test_more_parts_than_there_can_be_are_refused(api):
    assert_problem(begin(api, bytes=1001 * MIN_PART), 413, "payload_too_large")
    upload_id = begin(api).json()["id"]
    assert_problem(put(api, upload_id, 1001, b"x"), 422, "validation_error", "/number")
    urls = api.client.post(f"/v1/uploads/{upload_id}/part_urls", json={"numbers": [3]})
    assert_problem(urls, 404, "not_found")


def test_another_tenants_upload_is_not_found(api):
    upload_id, stranger = begin(api).json()["id"], api.stranger()
    path = f"/v1/uploads/{upload_id}"
    for call in (
        lambda: api.client.get(path, headers=stranger),
        lambda: api.client.put(f"{path}/parts/1", content=b"x", headers=stranger),
        lambda: api.client.post(f"{path}/complete", json={}, headers=stranger),
        lambda: api.client.post(f"{path}/cancel", headers=stranger),
    ):
        assert_problem(call(), 404, "not_found")
    assert_problem(api.client.get(f"/v1/uploads/{ABSENT}"), 404, "not_found")


def test_a_reader_cannot_upload(api):
    assert_problem(begin(api, api.stranger("read")), 403, "forbidden")


def test_artifacts_in_s3_are_fetched_from_s3_and_boto3_reads_them(s3_api, s3):
    job_id = s3_api.finished_job()
    manifest = s3_api.client.get(f"/v1/defense/jobs/{job_id}/artifacts").json()
    for entry in manifest["artifacts"]:
        path = f"/v1/defense/jobs/{job_id}/artifacts/{entry['name']}"
        answer = s3_api.client.get(path, follow_redirects=False)
        assert answer.status_code == 303
        fetched = httpx2.get(answer.headers["location"], headers={"Range": "bytes=1-"})
        assert fetched.status_code == 206
        stored = s3.client().get_object(Bucket=s3.bucket, Key=entry["key"])["Body"].read()
        assert (sha256(stored), stored[1:]) == (entry["sha256"], fetched.content)
        known = {"If-None-Match": f'"sha256-{entry["sha256"]}"'}
        unchanged = s3_api.client.get(path, headers=known, follow_redirects=False)
        assert unchanged.status_code == 304
    report = s3_api.client.get(f"/v1/defense/jobs/{job_id}/report", follow_redirects=False)
    assert report.status_code == 200 and report.headers["etag"].startswith('"sha256-')


def test_a_checkpoint_in_parts_is_safetensors_or_ends_the_upload(api):
    for data, status in ((safetensors(), 200), (zip_archive(), 415)):
        upload_id = begin(api, bytes=len(data), purpose="checkpoint").json()["id"]
        put(api, upload_id, 1, data)
        answer = complete(api, upload_id)
        assert answer.status_code == status
    assert_problem(answer, 415, "unsafe_format")
    assert api.client.get(f"/v1/uploads/{upload_id}").json()["status"] == "cancelled"


def test_nobody_uploads_what_a_job_would_publish(api):
    assert_problem(begin(api, purpose="fine-tune-results"), 422, "validation_error", "/purpose")


def test_an_idempotency_key_gives_one_upload_as_it_is_by_then(each_api):
    key = {"Idempotency-Key": "u-1"}
    first = begin(each_api, key).json()
    put(each_api, first["id"], 1, PARTS[1])
    again = begin(each_api, key)
    assert again.status_code == 201 and again.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] == first["id"]
    assert [part["number"] for part in again.json()["parts"]] == [1]
    other = begin(each_api, key, filename="other.zip")
    assert_problem(other, 422, "idempotency_key_reused", "Idempotency-Key")
