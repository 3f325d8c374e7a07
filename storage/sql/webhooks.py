"""Webhook endpoints in SQL, and the outbox of messages that are to reach them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from schemas.jobs import JobStatus
from schemas.webhooks import (
    EVENT_OF_STATUS,
    DeliveryStatus,
    EventSubject,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    WebhookMessage,
)
from schemas.wire import Page
from storage.errors import DeliveryLost, NotFound, TooManyWebhooks, UnknownWebhook
from storage.ids import new_id
from storage.interfaces import (
    DueDelivery,
    EndpointChanges,
    EndpointDraft,
    Order,
    Receipt,
    SigningSecrets,
)
from storage.sql.backend import SqlBackend, one_page, page_of
from storage.sql.engine import database_now
from storage.sql.tables import JobRow, WebhookDeliveryRow, WebhookEndpointRow

MAX_ENDPOINTS = 20
DELIVERIES_KEPT_S = 30 * 24 * 3600.0
GONE, BY_OWNER = "gone", "by_owner"


class SqlWebhooks(SqlBackend):
    """A `WebhookStore`."""

    def add_endpoint(self, tenant: str, draft: EndpointDraft) -> WebhookEndpoint:
        """Create an endpoint, or raise `TooManyWebhooks`."""
        of_tenant = WebhookEndpointRow.tenant == tenant
        with self._write() as session:
            if (session.scalar(select(func.count()).where(of_tenant)) or 0) >= MAX_ENDPOINTS:
                raise TooManyWebhooks()
            row = WebhookEndpointRow(
                id=new_id("whe"),
                tenant=tenant,
                url=draft.url,
                events=[event.value for event in draft.events],
                description=draft.description,
                secret=draft.secret,
                created_at=database_now(session),
            )
            session.add(row)
        return _endpoint(row)

    def get_endpoint(self, tenant: str, endpoint_id: str) -> WebhookEndpoint:
        """Return an endpoint or raise `NotFound`."""
        with self._read() as session:
            return _endpoint(_find_endpoint(session, tenant, endpoint_id))

    def list_endpoints(
        self,
        tenant: str,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[WebhookEndpoint]:
        """Return a page of endpoints by id; `before` alone gives the page that ends there."""
        query = select(WebhookEndpointRow).where(WebhookEndpointRow.tenant == tenant)
        key = WebhookEndpointRow.id
        with self._read() as session:
            rows, more = one_page(
                session, query, key, after=after, before=before, limit=limit, order=order
            )
        return page_of([_endpoint(row) for row in rows], more)

    def update_endpoint(
        self, tenant: str, endpoint_id: str, changes: EndpointChanges
    ) -> WebhookEndpoint:
        """Change what is not None; one that is switched off forgets what it had still to send."""
        with self._write() as session:
            row = _find_endpoint(session, tenant, endpoint_id, lock=True)
            row.url = changes.url or row.url
            if changes.events is not None:
                row.events = [event.value for event in changes.events]
            if changes.description is not None:
                row.description = changes.description
            if changes.enabled is True:
                row.disabled_reason = None
            if changes.enabled is False:
                _disable(session, row, BY_OWNER, database_now(session))
            return _endpoint(row)

    def delete_endpoint(self, tenant: str, endpoint_id: str) -> None:
        """Remove an endpoint with its deliveries, or raise `NotFound`."""
        with self._write() as session:
            row = _find_endpoint(session, tenant, endpoint_id, lock=True)
            session.execute(
                delete(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint_id == endpoint_id)
            )
            session.delete(row)

    def rotate_secret(
        self, tenant: str, endpoint_id: str, secret: str, *, grace_s: float
    ) -> tuple[WebhookEndpoint, float]:
        """Sign with `secret` from now on, and with the old one too for `grace_s`."""
        with self._write() as session:
            row = _find_endpoint(session, tenant, endpoint_id, lock=True)
            row.previous_secret, row.secret = row.secret, secret
            row.previous_until = database_now(session) + grace_s
            return _endpoint(row), row.previous_until

    def list_deliveries(
        self,
        tenant: str,
        endpoint_id: str,
        *,
        status: DeliveryStatus | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[WebhookDelivery]:
        """Return a page of an endpoint's deliveries, or raise `NotFound`."""
        query = select(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint_id == endpoint_id)
        if status is not None:
            query = query.where(WebhookDeliveryRow.status == status.value)
        key = WebhookDeliveryRow.id
        with self._read() as session:
            _find_endpoint(session, tenant, endpoint_id)
            rows, more = one_page(session, query, key, after=after, limit=limit, order=order)
        return page_of([_delivery(row) for row in rows], more)

    def redeliver(self, tenant: str, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
        """Make a delivery due now, with the whole schedule of attempts before it again."""
        with self._write() as session:
            _find_endpoint(session, tenant, endpoint_id)
            row = session.get(WebhookDeliveryRow, delivery_id, with_for_update=True)
            if row is None or row.endpoint_id != endpoint_id:
                raise NotFound(delivery_id)
            row.status, row.failures = DeliveryStatus.PENDING.value, 0
            row.due_at, row.finished_at = database_now(session), None
            return _delivery(row)

    def deliveries_due(self) -> bool:
        """Tell whether a sender would find anything to do."""
        with self._read() as session:
            return session.scalars(_due(database_now(session))).first() is not None

    def claim_delivery(self, *, lease_s: float) -> DueDelivery | None:
        """Take the delivery that has waited longest; of many senders one gets it."""
        with self._write() as session:
            now = database_now(session)
            row = session.scalars(_due(now).with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            endpoint = session.get_one(WebhookEndpointRow, row.endpoint_id)
            row.attempts += 1
            row.lease_until = now + lease_s
            return _due_delivery(row, endpoint, now)

    def settle_delivery(self, due: DueDelivery, receipt: Receipt) -> None:
        """Write what became of an attempt, or raise `DeliveryLost`."""
        with self._write() as session:
            endpoint = _endpoint_of(session, due, lock=receipt.gone)
            row = _claimed(session, due)
            now = database_now(session)
            row.lease_until = None
            row.last_status_code, row.last_error = receipt.status_code, receipt.error
            if receipt.error is None:
                _end(row, DeliveryStatus.SUCCEEDED, now)
                return
            row.failures += 1
            if receipt.retry_after_s is None or row.status != DeliveryStatus.PENDING:
                _end(row, DeliveryStatus.FAILED, now)
            else:
                row.due_at = now + receipt.retry_after_s
            if receipt.gone:
                _disable(session, endpoint, GONE, now)

    def prune_deliveries(self) -> None:
        """Forget deliveries that ended a month ago."""
        with self._write() as session:
            before = database_now(session) - DELIVERIES_KEPT_S
            session.execute(
                delete(WebhookDeliveryRow).where(WebhookDeliveryRow.finished_at < before)
            )


def announce_end(session: Session, job: JobRow, status: JobStatus, now: float) -> None:
    """Write one message for each endpoint that is to hear of the job's end.

    The caller's transaction changes the job's status: either both become true or neither.
    """
    event = EVENT_OF_STATUS[status]
    listeners = _listeners(session, job, event)
    message_id = new_id("evt")
    message = WebhookMessage(
        id=message_id,
        type=event,
        created_at=int(now),
        data=EventSubject(id=job.id, status=status),
    )
    for endpoint in listeners:
        session.add(
            WebhookDeliveryRow(
                id=new_id("whd"),
                endpoint_id=endpoint.id,
                message_id=message_id,
                type=event.value,
                job_id=job.id,
                body=message.model_dump_json(),
                status=DeliveryStatus.PENDING.value,
                created_at=now,
                due_at=now,
            )
        )


def require_endpoint(session: Session, tenant: str, endpoint_id: str) -> None:
    """Raise `UnknownWebhook` unless the tenant has such an endpoint."""
    row = session.get(WebhookEndpointRow, endpoint_id)
    if row is None or row.tenant != tenant:
        raise UnknownWebhook(endpoint_id)


def _listeners(session: Session, job: JobRow, event: WebhookEvent) -> Sequence[WebhookEndpointRow]:
    query = select(WebhookEndpointRow).where(
        WebhookEndpointRow.tenant == job.tenant, WebhookEndpointRow.disabled_reason.is_(None)
    )
    if (chosen := job.request.get("webhook")) is not None:
        query = query.where(WebhookEndpointRow.id == chosen)
    locked = query.with_for_update(read=True)
    return [row for row in session.scalars(locked) if event.value in row.events]


def _due(now: float) -> Any:
    row = WebhookDeliveryRow
    free = or_(row.lease_until.is_(None), row.lease_until < now)
    pending = row.status == DeliveryStatus.PENDING.value
    return select(row).where(pending, row.due_at <= now, free).order_by(row.due_at, row.id).limit(1)


def _due_delivery(row: WebhookDeliveryRow, endpoint: WebhookEndpointRow, now: float) -> DueDelivery:
    in_grace = endpoint.previous_until is not None and endpoint.previous_until > now
    previous = endpoint.previous_secret if in_grace else None
    return DueDelivery(
        id=row.id,
        endpoint_id=row.endpoint_id,
        message_id=row.message_id,
        attempt=row.attempts,
        failures=row.failures,
        url=endpoint.url,
        body=row.body,
        secrets=SigningSecrets(endpoint.secret, previous),
    )


def _endpoint_of(session: Session, due: DueDelivery, *, lock: bool) -> WebhookEndpointRow:
    """Lock the endpoint before its deliveries, as everyone does who locks both."""
    row = session.get(WebhookEndpointRow, due.endpoint_id, with_for_update=True if lock else None)
    if row is None:
        raise DeliveryLost(due.id)
    return row


def _claimed(session: Session, due: DueDelivery) -> WebhookDeliveryRow:
    row = session.get(WebhookDeliveryRow, due.id, with_for_update=True)
    if row is None or row.attempts != due.attempt or row.lease_until is None:
        raise DeliveryLost(due.id, due.attempt)
    return row


def _disable(session: Session, endpoint: WebhookEndpointRow, reason: str, now: float) -> None:
    endpoint.disabled_reason = reason
    session.execute(
        update(WebhookDeliveryRow)
        .where(
            WebhookDeliveryRow.endpoint_id == endpoint.id,
            WebhookDeliveryRow.status == DeliveryStatus.PENDING.value,
        )
        .values(
            status=DeliveryStatus.FAILED.value,
            due_at=None,
            finished_at=now,
            last_error="the endpoint was disabled",
        )
        .execution_options(synchronize_session=False)
    )


def _end(row: WebhookDeliveryRow, status: DeliveryStatus, now: float) -> None:
    row.status, row.due_at, row.finished_at = status.value, None, now


def _find_endpoint(
    session: Session, tenant: str, endpoint_id: str, *, lock: bool = False
) -> WebhookEndpointRow:
    query = select(WebhookEndpointRow).where(
        WebhookEndpointRow.id == endpoint_id, WebhookEndpointRow.tenant == tenant
    )
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(endpoint_id)
    return row


def _endpoint(row: WebhookEndpointRow) -> WebhookEndpoint:
    return WebhookEndpoint(
        id=row.id,
        url=row.url,
        events=[WebhookEvent(event) for event in row.events],
        description=row.description,
        enabled=row.disabled_reason is None,
        disabled_reason=row.disabled_reason,  # type: ignore[arg-type]  # one of the two
        created_at=int(row.created_at),
    )


def _delivery(row: WebhookDeliveryRow) -> WebhookDelivery:
    names = WebhookDelivery.model_fields.keys() - {"object", "created_at", "due_at", "finished_at"}
    return WebhookDelivery(
        **{name: getattr(row, name) for name in names},
        created_at=int(row.created_at),
        due_at=None if row.due_at is None else int(row.due_at),
        finished_at=None if row.finished_at is None else int(row.finished_at),
    )
