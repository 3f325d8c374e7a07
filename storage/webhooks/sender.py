"""From the outbox to the receivers: claim, sign, post, write down what became of it."""

import asyncio
from http import HTTPStatus

import structlog

from storage.errors import DeliveryLost
from storage.interfaces import DueDelivery, Receipt, WebhookStore
from storage.telemetry.metrics import WEBHOOK_DELIVERIES
from storage.webhooks.egress import Egress, NotReached, UrlRefused
from storage.webhooks.signing import signed_headers

log = structlog.get_logger()

MINUTE, HOUR = 60.0, 3600.0
BACKOFF_S = (
    5.0,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
)
"""After the first attempt these pauses, each followed by one more attempt."""
LEASE_S = 60.0
AT_ONCE = 8


class Sender:
    """Sends what is due; several may run at once, each delivery is one sender's."""

    def __init__(self, store: WebhookStore, egress: Egress) -> None:
        """Share store and way out."""
        self._store, self._egress = store, egress

    def send_due(self) -> int:
        """Send until nothing is due and return how many attempts were made.

        A slow receiver holds up one of `AT_ONCE` deliveries, for the egress's total time at most.
        """
        if not self._store.deliveries_due():
            return 0
        return asyncio.run(self._send_all())

    async def _send_all(self) -> int:
        return sum(await asyncio.gather(*(self._drain() for _ in range(AT_ONCE))))

    async def _drain(self) -> int:
        sent = 0
        while (due := await asyncio.to_thread(self._claim)) is not None:
            receipt = await self._attempt(due)
            await asyncio.to_thread(self._settle, due, receipt)
            sent += 1
        return sent

    def _claim(self) -> DueDelivery | None:
        return self._store.claim_delivery(lease_s=LEASE_S)

    def _settle(self, due: DueDelivery, receipt: Receipt) -> None:
        outcome = "succeeded" if receipt.error is None else "failed"
        WEBHOOK_DELIVERIES.labels("gone" if receipt.gone else outcome).inc()
        log.info(
            "webhook_sent",
            delivery=due.id,
            attempt=due.attempt,
            status=receipt.status_code,
            error=receipt.error,
        )
        try:
            self._store.settle_delivery(due, receipt)
        except DeliveryLost:
            log.warning("webhook_lease_lost", delivery=due.id, attempt=due.attempt)

    async def _attempt(self, due: DueDelivery) -> Receipt:
        headers = signed_headers(due.secrets, due.message_id, due.body)
        headers |= {"Content-Type": "application/json", "User-Agent": "DiSP-webhooks"}
        try:
            status = await self._egress.post(due.url, due.body.encode(), headers)
        except UrlRefused:
            return Receipt(error="the service sends nothing to this address")
        except NotReached as error:
            return Receipt(error=f"not reached: {error}", retry_after_s=pause_after(due.failures))
        return judge(status, due.failures)


def judge(status: int, failures: int) -> Receipt:
    """Return what a receiver's answer means; only 2xx is a success, 410 means never again."""
    if 200 <= status < 300:
        return Receipt(status_code=status)
    if status == HTTPStatus.GONE:
        return Receipt(status, error="the receiver answered 410", gone=True)
    return Receipt(
        status, error=f"the receiver answered {status}", retry_after_s=pause_after(failures)
    )


def pause_after(failures: int) -> float | None:
    """Return for how long to wait after `failures` earlier ones in a row; None ends it."""
    return BACKOFF_S[failures] if failures < len(BACKOFF_S) else None
