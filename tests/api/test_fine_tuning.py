"""The alias in OpenAI's shape; `test_openai` drives it with OpenAI's own client."""

import pytest

from tests.api.world import assert_problem

ALIAS, NATIVE = "/v1/fine_tuning/jobs", "/v1/defense/jobs"


def create(api, **fields):
    body = {"model": "tiny", "training_file": api.file_id(), **fields}
    return api.client.post(ALIAS, json=body)


def test_a_job_of_the_alias_is_the_same_job_under_its_own_name(api):
    clean = api.file_id()
    knobs = {"n_epochs": 3, "batch_size": "auto"}
    answer = create(api, hyperparameters=knobs, validation_file=clean, suffix="x", seed=5)
    theirs = answer.json()
    ours = api.client.get(f"{NATIVE}/{theirs['id']}").json()
    assert (answer.status_code, theirs["object"]) == (200, "fine_tuning.job")
    assert (theirs["status"], theirs["organization_id"]) == ("queued", "acme")
    assert theirs["hyperparameters"]["n_epochs"] == 3
    assert ours["method"]["hyperparameters"]["epochs"] == 3
    assert ours["evaluation"]["clean_file"] == theirs["validation_file"] == clean
    assert (ours["suffix"], ours["seed"]) == ("x", 5)
    assert api.client.get(f"{ALIAS}/{theirs['id']}").json() == theirs


def test_the_alias_says_all_that_the_native_job_can_be_told(api):
    hook = api.client.post("/v1/webhook_endpoints", json={"url": "https://hooks.example/"}).json()
    asked = {
        "model_revision": "r1",
        "checkpoint_file": api.checkpoint_id(),
        "stages": ["purify", "retrain"],
        "validation": "strict",
        "artifacts": ["merged_checkpoint"],
        "model_options": {"attention": "prefix"},
        "webhook": hook["id"],
    }
    theirs = create(api, **asked).json()
    ours = api.client.get(f"{NATIVE}/{theirs['id']}").json()
    assert {name: theirs[name] for name in asked} == asked
    assert {name: ours[name] for name in asked} == asked


@pytest.mark.parametrize(
    "fields",
    [
        {"stages": ["retrain"]},
        {"model_revision": "r0"},
        {"hyperparameters": {"n_epochs": 0}},
        {"hyperparameters": {"learning_rate_multiplier": 2}},
        {"hyperparameters": {}, "method": {"type": "disp"}},
        {"method": {"type": "supervised"}},
        {"integrations": []},
        {"validation_file": "nobody"},
    ],
)
def test_what_this_service_does_not_do_is_refused(api, fields):
    assert create(api, **fields).status_code == 422


def test_a_job_that_is_pausing_or_cancelling_still_runs_for_clients_who_know_no_better(api):
    job_id = create(api).json()["id"]
    claim = api.gateway.jobs.claim("w", lease_s=60, job_id=job_id)
    assert api.client.post(f"{ALIAS}/{job_id}/pause").json()["status"] == "running"
    api.gateway.jobs.release(claim)
    assert api.client.get(f"{ALIAS}/{job_id}").json()["status"] == "paused"
    assert api.client.post(f"{ALIAS}/{job_id}/resume").json()["status"] == "queued"
    assert_problem(
        api.client.post(f"{ALIAS}/{api.finished_job()}/pause"), 409, "job_status_conflict"
    )
