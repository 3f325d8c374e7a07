import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.jobs import JobError
from schemas.webhooks import DeliveryStatus, WebhookEvent
from storage.errors import DeliveryLost, NotFound, TooManyWebhooks, UnknownWebhook
from storage.interfaces import EndpointChanges, EndpointDraft, Receipt
from storage.sql.webhooks import MAX_ENDPOINTS
from tests.storage.world import STRANGER, TENANT, add_job

ARRIVED = Receipt(200)


def add_endpoint(store, tenant=TENANT, events=tuple(WebhookEvent)):
    return store.add_endpoint(tenant, EndpointDraft("https://a.example/", events, "", "whsec_YQ=="))


def deliveries(store, endpoint, tenant=TENANT):
    return list(store.list_deliveries(tenant, endpoint.id, order="asc").data)


def end_job(store, how, **fields):
    job_id = add_job(store, **fields)
    claim = store.claim("worker", lease_s=60.0, job_id=job_id)
    how(claim)
    return job_id


def test_each_way_to_end_has_its_event(store):
    endpoint = add_endpoint(store)
    error = JobError(code="engine_error", message="broke")
    succeeded = end_job(store, lambda claim: store.succeed(claim, "key", {}))
    failed = end_job(store, lambda claim: store.fail(claim, error))
    cancelled = end_job(store, store.mark_cancelled)
    found = {delivery.job_id: delivery.type.value for delivery in deliveries(store, endpoint)}
    assert found == {
        succeeded: "defense.job.succeeded",
        failed: "defense.job.failed",
        cancelled: "defense.job.cancelled",
    }


def test_a_message_is_written_in_the_transaction_that_ends_the_job(store, monkeypatch):
    endpoint = add_endpoint(store)
    job_id = add_job(store)

    def broken(*_args):
        raise RuntimeError("between the message and the commit")

    with monkeypatch.context() as patch:
        patch.setattr("storage.sql.jobs.after_commit", broken)
        with pytest.raises(RuntimeError):
            store.request_cancel(TENANT, job_id)
    assert store.get_job(TENANT, job_id).status == "queued"
    assert deliveries(store, endpoint) == [] and not store.deliveries_due()
    store.request_cancel(TENANT, job_id)
    assert len(deliveries(store, endpoint)) == 1


def test_only_listeners_of_the_same_tenant_and_event_are_told(store):
    mine = add_endpoint(store, events=[WebhookEvent.FAILED])
    other = add_endpoint(store, STRANGER)
    end_job(store, store.mark_cancelled)
    assert deliveries(store, mine) == [] and deliveries(store, other, STRANGER) == []


def test_a_job_that_names_an_endpoint_tells_that_one_alone(store):
    chosen, other = add_endpoint(store), add_endpoint(store)
    end_job(store, store.mark_cancelled, webhook=chosen.id)
    assert len(deliveries(store, chosen)) == 1 and deliveries(store, other) == []


def test_a_job_cannot_name_an_endpoint_of_another_tenant(store):
    with pytest.raises(UnknownWebhook):
        add_job(store, webhook=add_endpoint(store, STRANGER).id)


def test_of_many_claimers_each_delivery_is_ones(store):
    add_endpoint(store)
    for _ in range(8):
        end_job(store, store.mark_cancelled)
    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(lambda _: store.claim_delivery(lease_s=60), range(12)))
    ids = [due.id for due in claimed if due is not None]
    assert len(ids) == len(set(ids)) == 8


def test_a_dead_senders_delivery_is_taken_again_and_its_verdict_comes_too_late(store):
    endpoint = add_endpoint(store)
    end_job(store, store.mark_cancelled)
    dead = store.claim_delivery(lease_s=-1)
    living = store.claim_delivery(lease_s=60)
    assert (dead.id, dead.attempt, living.attempt) == (living.id, 1, 2)
    with pytest.raises(DeliveryLost):
        store.settle_delivery(dead, ARRIVED)
    store.settle_delivery(living, ARRIVED)
    with pytest.raises(DeliveryLost):
        store.settle_delivery(living, ARRIVED)
    (delivery,) = deliveries(store, endpoint)
    assert (delivery.status, delivery.attempts) == (DeliveryStatus.SUCCEEDED, 2)


def test_a_redelivery_is_due_now_with_the_same_message_and_all_attempts_before_it(store):
    endpoint = add_endpoint(store)
    end_job(store, store.mark_cancelled)
    first = store.claim_delivery(lease_s=60)
    store.settle_delivery(first, Receipt(500, error="no"))
    again = store.redeliver(TENANT, endpoint.id, first.id)
    assert again.status is DeliveryStatus.PENDING and again.finished_at is None
    second = store.claim_delivery(lease_s=60)
    assert (second.message_id, second.failures, second.attempt) == (first.message_id, 0, 2)


def test_a_delivery_belongs_to_its_endpoint_and_tenant(store):
    endpoint, other = add_endpoint(store), add_endpoint(store)
    end_job(store, store.mark_cancelled)
    (delivery,) = deliveries(store, endpoint)
    with pytest.raises(NotFound):
        store.redeliver(TENANT, other.id, delivery.id)
    with pytest.raises(NotFound):
        store.redeliver(STRANGER, endpoint.id, delivery.id)
    with pytest.raises(NotFound):
        deliveries(store, endpoint, STRANGER)


def test_an_endpoint_switched_off_drops_what_waits_and_hears_nothing_more(store):
    endpoint = add_endpoint(store)
    end_job(store, store.mark_cancelled)
    in_flight = store.claim_delivery(lease_s=60)
    off = store.update_endpoint(TENANT, endpoint.id, EndpointChanges(enabled=False))
    assert (off.enabled, off.disabled_reason) == (False, "by_owner")
    store.settle_delivery(in_flight, Receipt(500, error="no", retry_after_s=5))
    end_job(store, store.mark_cancelled)
    (delivery,) = deliveries(store, endpoint)
    assert delivery.status is DeliveryStatus.FAILED and delivery.due_at is None
    on = store.update_endpoint(TENANT, endpoint.id, EndpointChanges(enabled=True))
    assert on.enabled and on.disabled_reason is None


def test_the_body_says_what_happened_and_nothing_of_the_data(store):
    add_endpoint(store)
    job_id = end_job(store, store.mark_cancelled, metadata={"name": "secret"})
    body = store.claim_delivery(lease_s=60).body
    assert "secret" not in body and json.loads(body)["data"]["id"] == job_id


def test_a_tenant_has_a_bounded_number_of_endpoints(store):
    for _ in range(MAX_ENDPOINTS):
        add_endpoint(store)
    with pytest.raises(TooManyWebhooks):
        add_endpoint(store)
    add_endpoint(store, STRANGER)


def test_a_deleted_endpoint_takes_its_deliveries_along(store):
    endpoint = add_endpoint(store)
    end_job(store, store.mark_cancelled)
    due = store.claim_delivery(lease_s=60)
    store.delete_endpoint(TENANT, endpoint.id)
    with pytest.raises(NotFound):
        store.get_endpoint(TENANT, endpoint.id)
    with pytest.raises(DeliveryLost):
        store.settle_delivery(due, ARRIVED)


def test_deliveries_are_forgotten_a_month_after_they_ended(store):
    endpoint = add_endpoint(store)
    for _ in range(2):
        end_job(store, store.mark_cancelled)
    store.settle_delivery(store.claim_delivery(lease_s=60), ARRIVED)
    store.prune_deliveries()
    assert len(deliveries(store, endpoint)) == 2
    with store._engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE webhook_deliveries SET finished_at = 1 WHERE finished_at IS NOT NULL"
        )
    store.prune_deliveries()
    (left,) = deliveries(store, endpoint)
    assert left.status is DeliveryStatus.PENDING


def test_statistics_count_jobs_and_tell_who_waits_the_longest(store):
    add_endpoint(store)
    add_job(store)
    end_job(store, store.mark_cancelled)
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET created_at = created_at - 100")
    found = store.statistics()
    counted = {status.value: count for status, count in found.jobs.items() if count}
    assert counted == {"queued": 1, "cancelled": 1}
    assert 100 <= found.oldest_age_s["disp.gpu"] < 200
    assert 0 <= found.oldest_age_s["disp.io"] < 100
