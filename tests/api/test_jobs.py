import pytest

from schemas.jobs import StageName
from schemas.reports import Report
from storage.interfaces import EventDraft, MetricDraft
from tests.api.world import ARTIFACTS, REPORT, assert_problem, sha256
from workers.supervisor import engine_spec

JOBS = "/v1/defense/jobs"
ABSENT = "file_" + "0" * 32
VALID = f'{{"model":"tiny","training_file":"{ABSENT}","seed":7}}'


def test_a_job_is_created_queued_and_found_where_location_says(api):
    response = api.create(seed=5, metadata={"team": "red"}, method={"type": "disp"})
    job = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"{JOBS}/{job['id']}"
    assert (job["object"], job["status"], job["seed"]) == ("defense.job", "queued", 5)
    assert [step["name"] for step in job["steps"]] == list(StageName)
    assert api.client.get(response.headers["location"]).json() == job


def test_only_given_hyperparameters_are_kept(api):
    method = {"type": "disp", "hyperparameters": {"mask_ratio": 1, "generation_length": "auto"}}
    job_id = api.job_id(method=method)
    inputs = api.gateway.jobs.job_inputs(api.gateway.jobs.claim("w", lease_s=9, job_id=job_id))
    given = inputs.request.method.hyperparameters.model_dump(exclude_unset=True)
    assert given == {"mask_ratio": 1.0, "generation_length": "auto"}


def test_extra_artifacts_and_a_familys_options_reach_the_worker(api):
    asked = {"artifacts": ["merged_checkpoint"], "model_options": {"attention": "prefix"}}
    job_id = api.job_id(**asked)
    told = api.client.get(f"{JOBS}/{job_id}").json()
    assert {name: told[name] for name in asked} == asked
    inputs = api.gateway.jobs.job_inputs(api.gateway.jobs.claim("w", lease_s=9, job_id=job_id))
    spec = engine_spec(inputs)
    assert {name: spec[name] for name in asked} == asked


def test_a_projector_to_start_from_reaches_the_worker_and_is_kept_until_then(api):
    checkpoint = api.checkpoint_id()
    job_id = api.job_id(checkpoint_file=checkpoint)
    assert api.client.get(f"{JOBS}/{job_id}").json()["checkpoint_file"] == checkpoint
    assert_problem(api.client.delete(f"/v1/files/{checkpoint}"), 409, "file_in_use")
    claim = api.gateway.jobs.claim("w", lease_s=9, job_id=job_id)
    assert api.gateway.jobs.job_inputs(claim).checkpoint.id == checkpoint
    api.gateway.jobs.release(claim)
    api.client.post(f"{JOBS}/{job_id}/cancel")
    assert api.client.delete(f"/v1/files/{checkpoint}").status_code == 200


def test_a_published_projector_is_one_to_start_from(api):
    job_id = api.finished_job()
    [checkpoint] = api.client.get(f"{JOBS}/{job_id}/checkpoints").json()["data"]
    assert api.create(checkpoint_file=checkpoint["id"]).status_code == 201


def test_the_stages_asked_for_reach_the_worker_and_the_others_are_skipped_at_once(api):
    job = api.create(stages=["detect"]).json()
    assert job["stages"] == ["detect"]
    skipped = {step["name"] for step in job["steps"] if step["status"] == "skipped"}
    assert skipped == {"purify", "retrain", "evaluate_before", "evaluate_after"}
    claim = api.gateway.jobs.claim("w", lease_s=9, job_id=job["id"])
    assert engine_spec(api.gateway.jobs.job_inputs(claim))["stages"] == ["detect"]
    assert api.create().json()["stages"] == ["detect", "purify", "retrain", "evaluate"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"checkpoint_file": ABSENT}, "file_not_found", "/checkpoint_file"),
        ({"stages": ["retrain"]}, "validation_error", ""),
        ({"stages": []}, "validation_error", "/stages"),
        ({"model": "nope"}, "model_not_found", "/model"),
        ({"method": {"type": "self_purification"}}, "invalid_request", "/method"),
        ({"training_file": ABSENT}, "file_not_found", "/training_file"),
        ({"evaluation": {"clean_file": ABSENT}}, "file_not_found", "/evaluation/clean_file"),
        ({"model": "../etc"}, "validation_error", "/model"),
        ({"colour": "red"}, "validation_error", "/colour"),
        ({"seed": "1"}, "validation_error", "/seed"),
        ({"seed": True}, "validation_error", "/seed"),
        ({"artifacts": ["weights"]}, "validation_error", "/artifacts/0"),
        ({"metadata": {str(n): "" for n in range(17)}}, "validation_error", "/metadata"),
        ({"evaluation": {"triggered_file": ABSENT}}, "validation_error", "/evaluation"),
        (
            {"method": {"type": "disp", "hyperparameters": {"mask_ratio": 1.5}}},
            "validation_error",
            "/method/hyperparameters/mask_ratio",
        ),
    ],
)
def test_a_bad_request_is_refused_with_a_pointer_to_the_fault(api, fields, code, param):
    response = api.create(**fields)
    assert_problem(response, 422, code, param)
    assert api.client.get(JOBS).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("{", 400, "bad_request"),
        ("[" * 100_00, 400, "bad_request"),
        ("", 422, "validation_error"),
        ("[]", 422, "validation_error"),
        (VALID.replace("7", "NaN"), 400, "bad_request"),
        (VALID.replace("7", "1e999"), 422, "validation_error"),
        (VALID.replace("7", "9" * 30), 422, "validation_error"),
        (VALID.replace("7", '7,"suffix":"\\ud800"'), 422, "validation_error"),
        (VALID.replace("7", '7,"\\ud800":1'), 422, "validation_error"),
        (VALID.replace("7", '7,"metadata":{"\\ud800":"x"}'), 422, "validation_error"),
    ],
)
def test_a_body_that_is_no_job_is_refused(api, body, status, code):
    headers = {"Content-Type": "application/json"}
    response = api.client.post(JOBS, content=body.encode(), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_an_idempotency_key_gives_one_job(api):
    file_id = api.file_id()
    headers = {"Idempotency-Key": "k-1"}
    first = api.create(headers, training_file=file_id)
    again = api.create(headers, training_file=file_id)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = api.create(headers, training_file=file_id, seed=1)
    assert_problem(other, 422, "idempotency_key_reused", "Idempotency-Key")
    assert len(api.client.get(JOBS).json()["data"]) == 1


def test_jobs_are_listed_in_pages_by_status_and_model(api):
    file_id = api.file_id()
    jobs = [api.job_id(training_file=file_id) for _ in range(3)]
    api.client.post(f"{JOBS}/{jobs[0]}/cancel")
    queued = api.client.get(JOBS, params={"status": "queued", "limit": 1, "order": "asc"}).json()
    assert [job["id"] for job in queued["data"]] == [jobs[1]] and queued["has_more"]
    query = {"status": "queued", "after": queued["last_id"], "order": "asc"}
    rest = api.client.get(JOBS, params=query).json()
    assert [job["id"] for job in rest["data"]] == [jobs[2]] and not rest["has_more"]
    assert api.client.get(JOBS, params={"model": "other"}).json()["data"] == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "order=up", "status=waiting", "after=x", "before=x"]
)
def test_a_bad_query_is_refused_by_its_name(api, query):
    name = query.partition("=")[0]
    assert_problem(api.client.get(f"{JOBS}?{query}"), 422, "validation_error", f"/{name}")


def test_cancelling_is_idempotent_and_a_running_job_is_cancelling(api):
    queued = api.job_id()
    for _ in range(2):
        assert api.client.post(f"{JOBS}/{queued}/cancel").json()["status"] == "cancelled"
    running = api.job_id()
    api.gateway.jobs.claim("w", lease_s=60, job_id=running)
    for _ in range(2):
        assert api.client.post(f"{JOBS}/{running}/cancel").json()["status"] == "cancelling"


def test_events_are_read_on_from_the_last_seen(api):
    job_id = api.job_id()
    claim = api.gateway.jobs.claim("w", lease_s=60, job_id=job_id)
    api.gateway.jobs.record(claim, events=[EventDraft(f"e{n}") for n in range(3)])
    first = api.client.get(f"{JOBS}/{job_id}/events", params={"limit": 3}).json()
    query = {"after": first["last_id"]}
    rest = api.client.get(f"{JOBS}/{job_id}/events", params=query).json()
    events = first["data"] + rest["data"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
    assert events[-1]["message"] == "e2" and events[0]["object"] == "defense.job.event"


def test_metrics_are_served_by_stage(api):
    job_id = api.job_id()
    claim = api.gateway.jobs.claim("w", lease_s=60, job_id=job_id)
    drafts = [MetricDraft(stage, 1, {"loss": 0.5}) for stage in ("fine_tune", "retrain")]
    drafts = [MetricDraft(StageName(d.stage), d.step, d.values) for d in drafts]
    api.gateway.jobs.record(claim, metrics=drafts)
    served = api.client.get(f"{JOBS}/{job_id}/metrics", params={"stage": "retrain"}).json()
    assert [(m["stage"], m["values"]) for m in served["data"]] == [("retrain", {"loss": 0.5})]


@pytest.mark.parametrize("what", ["artifacts", "artifacts/report.json", "report"])
def test_an_unfinished_job_has_nothing_to_fetch(api, what):
    response = api.client.get(f"{JOBS}/{api.job_id()}/{what}")
    assert_problem(response, 409, "job_not_finished")


def test_every_artifact_of_the_manifest_comes_whole(api):
    job_id = api.finished_job()
    manifest = api.client.get(f"{JOBS}/{job_id}/artifacts").json()
    assert {entry["name"] for entry in manifest["artifacts"]} == set(ARTIFACTS)
    for entry in manifest["artifacts"]:
        answer = api.client.get(f"{JOBS}/{job_id}/artifacts/{entry['name']}")
        assert sha256(answer.content) == entry["sha256"]
        assert answer.headers["etag"] == f'"sha256-{entry["sha256"]}"'
        assert int(answer.headers["content-length"]) == entry["bytes"]
    absent = api.client.get(f"{JOBS}/{job_id}/artifacts/absent")
    assert_problem(absent, 404, "not_found")


@pytest.mark.parametrize(
    ("asked", "span"),
    [("bytes=0-0", (0, 1)), ("bytes=5-", (5, 10240)), ("bytes=-7", (10233, 10240)),
     ("bytes=100-99999", (100, 10240)), ("bytes=-99999", (0, 10240))],
)  # fmt: skip
def test_a_range_is_served_as_a_part(api, asked, span):
    url = f"{JOBS}/{api.finished_job()}/artifacts/mm_projector.safetensors"
    answer = api.client.get(url, headers={"Range": asked})
    data = ARTIFACTS["mm_projector.safetensors"][0]
    assert (answer.status_code, answer.content) == (206, data[slice(*span)])
    assert answer.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/10240"


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(api, asked):
    url = f"{JOBS}/{api.finished_job()}/artifacts/mm_projector.safetensors"
    answer = api.client.get(url, headers={"Range": asked})
    assert_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */10240"


@pytest.mark.parametrize(
    "headers",
    [{"Range": "lines=1-2"}, {"Range": "bytes=9-2"}, {"Range": "bytes=-"},
     {"Range": f"bytes={'9' * 5000}-"},
     {"Range": "bytes=0-1,4-5"}, {"Range": "bytes=0-1", "If-Range": '"other"'}],
)  # fmt: skip
def test_a_range_that_does_not_apply_gets_the_whole(api, headers):
    url = f"{JOBS}/{api.finished_job()}/artifacts/mm_projector.safetensors"
    answer = api.client.get(url, headers=headers)
    assert (answer.status_code, len(answer.content)) == (200, 10240)


def test_what_the_client_already_has_is_not_sent_again(api):
    url = f"{JOBS}/{api.finished_job()}/artifacts/report.json"
    etag = api.client.get(url).headers["etag"]
    for condition in (etag, f'"x", {etag}', "*", f"W/{etag}"):
        answer = api.client.get(url, headers={"If-None-Match": condition})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert api.client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200


def test_the_report_is_json_of_the_published_schema(api):
    answer = api.client.get(f"{JOBS}/{api.finished_job()}/report")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == REPORT
    Report.model_validate(answer.json())


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("application/json, text/html;q=0.5", False),
        ("application/json, text/html", False),
        ("*/*", False),
    ],
)
def test_the_report_is_a_sealed_page_for_browsers(api, accept, html):
    answer = api.client.get(f"{JOBS}/{api.finished_job()}/report", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("text/html") is html
    assert (answer.content == ARTIFACTS["report.html"][0]) is html
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-disposition" not in answer.headers


@pytest.mark.parametrize(
    ("method", "what"),
    [("GET", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "/metrics"),
     ("GET", "/artifacts"), ("GET", "/artifacts/report.json"), ("GET", "/report")],
)  # fmt: skip
def test_another_tenants_job_is_not_found(api, method, what):
    url = f"{JOBS}/{api.finished_job()}{what}"
    assert_problem(api.client.request(method, url, headers=api.stranger()), 404, "not_found")
    assert api.client.get(JOBS, headers=api.stranger()).json()["data"] == []


def test_a_job_may_pin_its_models_revision(api):
    revision = api.client.get("/v1/models/tiny").json()["revision"]
    created = api.create(model_revision=revision)
    assert (created.status_code, created.json()["model_revision"]) == (201, revision)
    assert_problem(api.create(model_revision="another"), 422, "model_not_found", "/model")
