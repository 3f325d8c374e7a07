import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from prometheus_client import REGISTRY
from standardwebhooks import Webhook

from schemas.webhooks import DeliveryStatus, WebhookEvent
from storage.connect import open_job_store
from storage.interfaces import EndpointDraft, JobStore, SigningSecrets
from storage.webhooks.egress import Egress
from storage.webhooks.sender import BACKOFF_S, Sender, judge, pause_after
from storage.webhooks.signing import new_secret, signed_headers
from tests.parts.sqlite import sqlite_database
from tests.storage.webhooks.receiver import Receiver
from tests.storage.world import TENANT, add_job, register_tiny

HOUR = 3600.0


@pytest.fixture
def store(tmp_path) -> JobStore:
    store = open_job_store(sqlite_database(tmp_path / "jobs.sqlite"))
    register_tiny(store)
    yield store
    store.close()


@pytest.fixture
def sender(store: JobStore) -> Sender:
    return Sender(store, Egress(allow_local=True))


@pytest.fixture
def listen(store: JobStore, receiver: Receiver) -> Callable[[], str]:
    def listen(url: str | None = None) -> str:
        secret = new_secret()
        draft = EndpointDraft(url or receiver.url, list(WebhookEvent), "", secret)
        store.add_endpoint(TENANT, draft)
        return secret

    return listen


def cancelled_job(store: JobStore) -> str:
    job_id = add_job(store)
    store.request_cancel(TENANT, job_id)
    return job_id


def only_delivery(store: JobStore):
    (endpoint,) = store.list_endpoints(TENANT).data
    (delivery,) = store.list_deliveries(TENANT, endpoint.id).data
    return delivery


def make_due(store: JobStore) -> None:
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE webhook_deliveries SET due_at = 1 WHERE due_at > 0")


def test_a_message_arrives_signed_as_openais_own_client_wants_it(
    store, sender, receiver, listen
) -> None:
    secret = listen()
    job_id = cancelled_job(store)
    assert sender.send_due() == 1
    (seen,) = receiver.seen
    event = OpenAI(api_key="x").webhooks.unwrap(seen.body, seen.headers, secret=secret)
    assert event.type == "defense.job.cancelled"
    message = json.loads(seen.body)
    assert message["data"] == {"id": job_id, "object": "defense.job", "status": "cancelled"}
    assert (message["object"], message["id"]) == ("event", seen.headers["webhook-id"])
    delivery = only_delivery(store)
    assert (delivery.status, delivery.attempts) == (DeliveryStatus.SUCCEEDED, 1)
    assert delivery.last_status_code == 200 and delivery.due_at is None
    assert sender.send_due() == 0


def test_a_changed_body_or_another_secret_is_told_from_the_signature(
    store, sender, receiver, listen
) -> None:
    secret = listen()
    cancelled_job(store)
    sender.send_due()
    (seen,) = receiver.seen
    unwrap = OpenAI(api_key="x").webhooks.unwrap
    with pytest.raises(InvalidWebhookSignatureError):
        unwrap(seen.body.replace(b"cancelled", b"succeeded"), seen.headers, secret=secret)
    with pytest.raises(InvalidWebhookSignatureError):
        unwrap(seen.body, seen.headers, secret=new_secret())


def test_while_grace_lasts_both_secrets_verify_and_afterwards_the_new_one_alone(
    store, sender, receiver, listen
) -> None:
    old, new = listen(), new_secret()
    (endpoint,) = store.list_endpoints(TENANT).data
    store.rotate_secret(TENANT, endpoint.id, new, grace_s=60)
    cancelled_job(store)
    sender.send_due()
    seen = receiver.seen[-1]
    for secret in (old, new):
        Webhook(secret).verify(seen.body, dict(seen.headers))
    assert seen.headers["webhook-signature"].count("v1,") == 2

    store.rotate_secret(TENANT, endpoint.id, newest := new_secret(), grace_s=0)
    cancelled_job(store)
    sender.send_due()
    seen = receiver.seen[-1]
    Webhook(newest).verify(seen.body, dict(seen.headers))
    assert seen.headers["webhook-signature"].count("v1,") == 1


def test_a_refusal_is_tried_again_after_the_pauses_of_the_schedule_and_then_given_up(
    store, sender, receiver, listen
) -> None:
    listen()
    receiver.status = 500
    cancelled_job(store)
    for attempt, pause in enumerate([*BACKOFF_S, None], 1):
        before = store.now()
        assert sender.send_due() == 1
        delivery = only_delivery(store)
        assert delivery.attempts == attempt
        if pause is not None:
            assert delivery.status is DeliveryStatus.PENDING
            assert int(before + pause) <= delivery.due_at <= store.now() + pause
        make_due(store)
    assert delivery.status is DeliveryStatus.FAILED
    assert (delivery.last_status_code, delivery.due_at) == (500, None)
    assert sender.send_due() == 0
    assert len({seen.headers["webhook-id"] for seen in receiver.seen}) == 1


def test_the_schedule_is_the_one_that_is_documented() -> None:
    assert BACKOFF_S == (
        5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR,
    )  # fmt: skip
    assert pause_after(0) == 5 and pause_after(9) is None


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 429, 503])
def test_everything_but_success_is_a_failure_that_may_pass(status: int) -> None:
    receipt = judge(status, failures=0)
    assert receipt.error is not None and receipt.retry_after_s == 5 and not receipt.gone


def test_gone_disables_the_endpoint_and_everything_it_was_still_to_get(
    store, sender, receiver, listen
) -> None:
    listen()
    receiver.status = 410
    first, second = cancelled_job(store), cancelled_job(store)
    store_due = store.claim_delivery(lease_s=60)
    sender.send_due()
    (endpoint,) = store.list_endpoints(TENANT).data
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, "gone")
    deliveries = store.list_deliveries(TENANT, endpoint.id).data
    assert {delivery.job_id for delivery in deliveries} == {first, second}
    assert {delivery.status for delivery in deliveries} == {DeliveryStatus.FAILED}
    assert len(receiver.seen) == 1 and store_due is not None
    cancelled_job(store)
    assert len(store.list_deliveries(TENANT, endpoint.id).data) == 2


def test_a_refused_address_is_given_up_at_once(store, listen) -> None:
    listen("https://localhost/hook")
    cancelled_job(store)
    assert Sender(store, Egress()).send_due() == 1
    delivery = only_delivery(store)
    assert delivery.status is DeliveryStatus.FAILED and delivery.attempts == 1
    assert "127." not in delivery.last_error  # nothing about the inside is told to the owner


def test_many_senders_at_once_send_each_message_once(store, receiver, listen) -> None:
    listen()
    jobs = {cancelled_job(store) for _ in range(12)}
    senders = [Sender(store, Egress(allow_local=True)) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(Sender.send_due, senders)) == 12
    arrived = [json.loads(seen.body)["data"]["id"] for seen in receiver.seen]
    assert sorted(arrived) == sorted(jobs)


def test_attempts_are_counted_by_outcome(store, sender, receiver, listen) -> None:
    def count(outcome: str) -> float:
        name = "disp_webhook_deliveries_total"
        return REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0

    before = count("succeeded")
    listen()
    cancelled_job(store)
    sender.send_due()
    assert count("succeeded") == before + 1


def test_a_signature_is_the_one_of_the_standards_example() -> None:
    from datetime import datetime

    keys = SigningSecrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    moment = datetime.fromtimestamp(1614265330, UTC)
    headers = signed_headers(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}', moment)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"
