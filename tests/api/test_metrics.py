from prometheus_client.parser import text_string_to_metric_families

from tests.api.world import assert_problem

GATEWAYS = {
    "disp_jobs_created",
    "disp_jobs_finished",
    "disp_jobs",
    "disp_job_stage_duration_seconds",
    "disp_queue_oldest_age_seconds",
    "disp_lease_expired",
    "disp_hints_resent",
    "disp_samples_processed",
    "disp_upload_received_bytes",
    "disp_upload_refused",
    "disp_webhook_deliveries",
    "disp_build_info",
}


def scrape(api):
    key = api.gateway.jobs.issue_key("operator", ("metrics",))
    answer = api.client.get("/metrics", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return list(text_string_to_metric_families(answer.text))


def values(api):
    samples = [sample for family in scrape(api) for sample in family.samples]
    return {(s.name, *sorted(s.labels.values())): s.value for s in samples}


def test_metrics_need_a_key_of_their_own_scope(api):
    assert_problem(api.client.get("/metrics"), 403, "forbidden")
    del api.client.headers["Authorization"]
    assert_problem(api.client.get("/metrics"), 401, "unauthenticated")


def test_every_documented_name_is_there_and_no_label_names_a_job_or_a_tenant(api):
    api.job_id()
    families = scrape(api)
    assert {f.name for f in families if f.name.startswith("disp_")} == GATEWAYS
    labels = {label for family in families for s in family.samples for label in s.labels}
    assert labels <= {"method", "status", "reason", "stage", "queue", "verdict", "code", "outcome",
                      "version", "torch", "cuda", "le", "implementation", "major", "minor",
                      "patchlevel", "generation"}  # fmt: skip


def test_a_jobs_life_is_counted_once_committed(api):
    before = values(api)
    job_id = api.job_id()
    api.client.post(f"/v1/defense/jobs/{job_id}/cancel")
    after = values(api)
    for key in (("disp_jobs_created_total", "disp"), ("disp_jobs_finished_total", "", "cancelled")):
        assert after[key] == before.get(key, 0) + 1
    assert after["disp_jobs", "cancelled"] == 1
    assert after["disp_jobs", "queued"] == 0


def test_uploads_and_their_refusals_are_counted(api):
    before = values(api)
    assert api.upload(b"neither zip nor tar").status_code == 415
    after = values(api)
    code = ("disp_upload_refused_total", "unsupported_format")
    assert after[code] == before.get(code, 0) + 1
    received = ("disp_upload_received_bytes_total",)
    assert after[received] > before[received]


def test_a_failed_job_is_counted_with_its_reason(api):
    from schemas.jobs import JobError

    claim = api.gateway.jobs.claim("w", lease_s=60, job_id=api.job_id())
    before = values(api)
    api.gateway.jobs.fail(claim, JobError(code="invalid_dataset", message="m"))
    key = ("disp_jobs_finished_total", "failed", "invalid_dataset")
    assert values(api)[key] == before.get(key, 0) + 1


def test_a_lost_lease_is_counted(api):
    api.gateway.jobs.claim("w", lease_s=-1, job_id=api.job_id())
    before = values(api)["disp_lease_expired_total",]
    api.gateway.jobs.reconcile()
    assert values(api)["disp_lease_expired_total",] == before + 1
