"""What a job's owner may ask of it, over HTTP; the store's tests hold the rules themselves."""

import pytest

from tests.api.world import assert_problem

JOBS = "/v1/defense/jobs"


def ask(api, job_id, what, headers=None):
    return api.client.post(f"{JOBS}/{job_id}/{what}", headers=headers)


def test_a_queued_job_is_paused_and_resumed_and_hinted_at_again(api, monkeypatch):
    hints = []
    monkeypatch.setattr(type(api.gateway.queue), "hint", lambda _self, job_id: hints.append(job_id))
    job_id = api.job_id()
    assert ask(api, job_id, "pause").json()["status"] == "paused"
    assert api.client.get(JOBS, params={"status": "paused"}).json()["data"][0]["id"] == job_id
    assert ask(api, job_id, "resume").json()["status"] == "queued"
    assert hints == [job_id, job_id]


def test_a_running_job_is_pausing_until_its_worker_hands_it_back(api):
    job_id = api.job_id()
    claim = api.gateway.jobs.claim("w", lease_s=60, job_id=job_id)
    assert ask(api, job_id, "pause").json()["status"] == "pausing"
    api.gateway.jobs.release(claim)
    paused = api.client.get(f"{JOBS}/{job_id}").json()
    assert (paused["status"], paused["attempt"]) == ("paused", 1)
    assert paused["usage"]["worker_seconds"] >= 0
    assert ask(api, job_id, "cancel").json()["status"] == "cancelled"


@pytest.mark.parametrize("what", ["pause", "resume"])
def test_a_finished_job_is_neither_paused_nor_resumed(api, what):
    assert_problem(ask(api, api.finished_job(), what), 409, "job_status_conflict")


def test_a_retry_is_a_new_job_and_obeys_its_key(api):
    failed = api.failed_job()
    key = {"Idempotency-Key": "r-1"}
    first = ask(api, failed, "retry", key)
    again = ask(api, failed, "retry", key)
    assert (first.status_code, first.json()["retry_of"]) == (201, failed)
    assert first.headers["location"] == f"{JOBS}/{first.json()['id']}"
    assert again.json() == first.json() and again.headers["idempotency-replayed"] == "true"
    other = ask(api, api.failed_job(), "retry", key)
    assert_problem(other, 422, "idempotency_key_reused", "Idempotency-Key")
    assert_problem(ask(api, first.json()["id"], "retry"), 409, "job_status_conflict")


def test_a_key_of_one_route_is_no_key_of_another(api):
    key = {"Idempotency-Key": "k"}
    api.create(key)
    answer = ask(api, api.failed_job(), "retry", key)
    assert_problem(answer, 422, "idempotency_key_reused", "Idempotency-Key")


def test_a_deleted_job_leaves_no_bytes_behind(api):
    job_id = api.finished_job()
    keys = list(api.gateway.artifacts.keys(f"tenants/acme/jobs/{job_id}/"))
    assert len(keys) == 5
    answer = api.client.delete(f"{JOBS}/{job_id}")
    assert answer.json() == {"id": job_id, "object": "defense.job", "deleted": True}
    assert not any(api.gateway.artifacts.exists(key) for key in keys)
    assert_problem(api.client.get(f"{JOBS}/{job_id}"), 404, "not_found")
    assert_problem(api.client.get(f"{JOBS}/{job_id}/artifacts"), 404, "not_found")


def test_results_are_files_that_only_their_job_can_delete(api):
    job = api.client.get(f"{JOBS}/{api.finished_job()}").json()
    files = [api.client.get(f"/v1/files/{file_id}").json() for file_id in job["result_files"]]
    assert {file["purpose"] for file in files} == {"fine-tune-results"}
    listed = api.client.get("/v1/files", params={"purpose": "fine-tune-results"}).json()["data"]
    assert {file["id"] for file in listed} == set(job["result_files"])
    for file in files:
        content = api.client.get(f"/v1/files/{file['id']}/content")
        assert content.headers["etag"] == f'"sha256-{file["sha256"]}"'
        assert_problem(api.client.delete(f"/v1/files/{file['id']}"), 409, "file_is_result")
    refused = api.upload(purpose="fine-tune-results")
    assert_problem(refused, 422, "validation_error", "/purpose")


def test_the_projector_of_a_finished_job_is_its_checkpoint(api):
    assert api.client.get(f"{JOBS}/{api.job_id()}/checkpoints").json()["data"] == []
    job_id = api.finished_job()
    (checkpoint,) = api.client.get(f"{JOBS}/{job_id}/checkpoints").json()["data"]
    assert (checkpoint["artifact"], checkpoint["bytes"]) == ("mm_projector.safetensors", 10240)
    content = api.client.get(f"/v1/files/{checkpoint['id']}/content").content
    assert len(content) == 10240


def test_labels_in_the_query_find_jobs(api):
    red = api.job_id(metadata={"team": "red", "a]b": "ü"})
    api.job_id(metadata={"team": "blue"})

    def found(**query):
        return [job["id"] for job in api.client.get(JOBS, params=query).json()["data"]]

    assert found(**{"metadata[team]": "red"}) == found(**{"metadata[a]b]": "ü"}) == [red]
    assert found(**{"metadata[team]": "red", "metadata[a]b]": "u"}) == []


@pytest.mark.parametrize(
    "query",
    ["metadata=x", "metadata[]=x", "metadata[a]=1&metadata[a]=2", "metadata[a]=%00", "metadatum=1",
     "&".join(f"metadata[{n}]=x" for n in range(17))],
)  # fmt: skip
def test_what_is_no_label_is_refused(api, query):
    answer = api.client.get(f"{JOBS}?{query}")
    if query.startswith("metadatum"):
        assert answer.status_code == 200
    else:
        assert answer.status_code == 422 and answer.json()["errors"][0]["in"] == "query"


def test_a_page_before_the_next_is_the_one_that_was(api):
    file_id = api.file_id()
    jobs = [api.job_id(training_file=file_id) for _ in range(5)][::-1]
    second = api.client.get(JOBS, params={"after": jobs[1], "limit": 2}).json()
    first = api.client.get(JOBS, params={"before": second["first_id"], "limit": 2}).json()
    assert [job["id"] for job in first["data"]] == jobs[:2] and not first["has_more"]
