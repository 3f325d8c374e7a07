from tests.api.world import assert_problem

HOOKS = "/v1/webhook_endpoints"


def create(api, url="https://hooks.example/disp", **fields):
    return api.client.post(HOOKS, json={"url": url, **fields})


def test_an_endpoint_is_created_listed_changed_and_deleted(api):
    created = create(api, description="ours", events=["defense.job.failed"])
    assert created.status_code == 201
    path = created.headers["location"]
    body = created.json()
    assert path == f"{HOOKS}/{body['id']}" and body["secret"].startswith("whsec_")
    shown = api.client.get(path).json()
    assert shown == {
        name: value
        for name, value in body.items()
        if name not in ("secret", "previous_secret_expires_at")
    }
    assert (shown["enabled"], shown["events"]) == (True, ["defense.job.failed"])
    assert api.client.get(HOOKS).json()["data"] == [shown]
    changed = api.client.patch(path, json={"description": "yours", "enabled": False}).json()
    assert (changed["description"], changed["enabled"]) == ("yours", False)
    assert changed["url"] == shown["url"]
    assert api.client.delete(path).json()["deleted"] is True
    assert_problem(api.client.get(path), 404, "not_found")


def test_an_endpoint_hears_everything_unless_it_says_otherwise(api):
    events = create(api).json()["events"]
    assert events == ["defense.job.succeeded", "defense.job.failed", "defense.job.cancelled"]


def test_urls_that_webhooks_must_not_go_to_are_refused(api):
    for url in ("http://hooks.example/", "https://127.0.0.1/", "https://u:p@hooks.example/"):
        assert_problem(create(api, url), 422, "url_refused", "/url")
    path = f"{HOOKS}/{create(api).json()['id']}"
    answer = api.client.patch(path, json={"url": "https://169.254.169.254/"})
    assert_problem(answer, 422, "url_refused", "/url")


def test_a_secret_is_shown_at_its_making_and_never_again(api):
    created = create(api).json()
    path = f"{HOOKS}/{created['id']}"
    rotated = api.client.post(f"{path}/rotate_secret", json={"grace_s": 60}).json()
    assert rotated["secret"] != created["secret"]
    assert rotated["previous_secret_expires_at"] > rotated["created_at"]
    assert api.client.post(f"{path}/rotate_secret").status_code == 200
    for shown in (api.client.get(path), api.client.get(HOOKS), api.client.patch(path, json={})):
        assert "whsec_" not in shown.text


def test_another_tenants_endpoint_does_not_exist(api):
    path = f"{HOOKS}/{create(api).json()['id']}"
    stranger = api.stranger()
    for method, suffix in [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/rotate_secret"),
        ("GET", "/deliveries"),
    ]:
        body = {} if method in ("PATCH", "POST") else None
        answer = api.client.request(method, path + suffix, json=body, headers=stranger)
        assert_problem(answer, 404, "not_found")
    assert api.client.get(HOOKS, headers=stranger).json()["data"] == []


def test_a_key_that_may_only_read_changes_no_endpoint(api):
    reader = api.stranger("read")
    answer = api.client.post(HOOKS, json={"url": "https://h.example/"}, headers=reader)
    assert_problem(answer, 403, "forbidden")


def test_deliveries_are_listed_and_sent_again_on_demand(api):
    endpoint = create(api).json()["id"]
    job_id = api.job_id()
    api.client.post(f"/v1/defense/jobs/{job_id}/cancel")
    listed = api.client.get(f"{HOOKS}/{endpoint}/deliveries").json()["data"]
    (delivery,) = listed
    assert (delivery["job_id"], delivery["type"]) == (job_id, "defense.job.cancelled")
    again = api.client.post(f"{HOOKS}/{endpoint}/deliveries/{delivery['id']}/redeliver")
    assert (again.status_code, again.json()["status"]) == (202, "pending")
    unknown = api.client.post(f"{HOOKS}/{endpoint}/deliveries/whd_{'0' * 32}/redeliver")
    assert_problem(unknown, 404, "not_found")
    assert_problem(api.client.get(f"{HOOKS}/{endpoint}/deliveries?status=x"), 422,
                   "validation_error", "/status")  # fmt: skip


def test_a_job_may_name_one_endpoint_of_its_tenant(api):
    endpoint = create(api).json()["id"]
    created = api.create(webhook=endpoint)
    assert (created.status_code, created.json()["webhook"]) == (201, endpoint)
    unknown = api.create(webhook="whe_" + "0" * 32)
    assert_problem(unknown, 422, "webhook_not_found", "/webhook")
