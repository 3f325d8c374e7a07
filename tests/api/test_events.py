"""The stream's refusals and its end, in process; `test_openai` holds a stream open on a socket."""

import pytest

from storage.errors import StoreAway
from tests.api.world import assert_problem


def stream(api, job_id, **headers):
    return api.client.get(f"/v1/defense/jobs/{job_id}/events/stream", headers=headers)


def ids(answer):
    lines = answer.text.splitlines()
    return [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]


def test_the_stream_of_a_finished_job_ends_with_the_job_itself(api):
    job_id = api.finished_job()
    answer = stream(api, job_id)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert ids(answer) == [1, 2, 3]
    assert answer.text.count("event: job\n") == 1
    assert '"status":"succeeded"' in answer.text.rpartition("event: job\n")[2]


def test_a_stream_is_taken_up_behind_the_last_event(api):
    job_id = api.finished_job()
    assert ids(stream(api, job_id, **{"Last-Event-ID": "2"})) == [3]
    assert ids(stream(api, job_id, **{"Last-Event-ID": "3"})) == []


def test_what_can_be_refused_is_refused_before_the_stream_begins(api):
    assert_problem(stream(api, "job_" + "0" * 32), 404, "not_found")
    wrong = stream(api, api.finished_job(), **{"Last-Event-ID": "evt_1"})
    assert_problem(wrong, 422, "validation_error", "/last-event-id")


def test_a_store_that_is_away_for_a_moment_interrupts_no_stream(api, monkeypatch):
    job_id, faults = api.finished_job(), [StoreAway(), StoreAway()]
    real = type(api.gateway.jobs).list_events

    def sometimes(store, *args, **options):
        if faults:
            raise faults.pop()
        return real(store, *args, **options)

    monkeypatch.setattr(type(api.gateway.jobs), "list_events", sometimes)
    monkeypatch.setattr("api.events.feed.POLL_S", 0.01)
    assert ids(stream(api, job_id)) == [1, 2, 3]


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_job_that_goes_away_ends_its_stream(api, monkeypatch, how):
    job_id = api.job_id()
    real = type(api.gateway.jobs).list_events

    def meanwhile(store, tenant, job, **options):
        page = real(store, tenant, job, **options)
        store.request_cancel(tenant, job)
        if how == "delete":
            store.delete_job(tenant, job)
        return page

    monkeypatch.setattr(type(api.gateway.jobs), "list_events", meanwhile)
    monkeypatch.setattr("api.events.feed.POLL_S", 0.01)
    assert ids(stream(api, job_id)) == ([1, 2] if how == "cancel" else [1])
