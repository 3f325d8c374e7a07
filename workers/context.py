"""The lease of one claimed job: a thread renews it, everyone else asks whether to go on."""

import threading
import time
from contextvars import copy_context
from enum import StrEnum
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import structlog

from storage.interfaces import Directive

log = structlog.get_logger()

PARTING_S = 5.0


class Outcome(StrEnum):
    """How an attempt ended; after the last two, somebody else decides what becomes of the job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    RELEASED = "released"
    LEASE_LOST = "lease_lost"
    ENGINE_LOST = "engine_lost"


class Halted(Exception):
    """The attempt must stop here; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


Right = TypeVar("Right")
Renewed = TypeVar("Renewed", contravariant=True)


class Heartbeats(Protocol[Renewed]):
    """Whoever renews a right."""

    def heartbeat(self, claim: Renewed, *, lease_s: float) -> Directive: ...


class JobContext(Generic[Right]):
    """Heartbeats while it is open; a lease that could not be renewed in its time is lost."""

    def __init__(
        self,
        store: Heartbeats[Right],
        claim: Right,
        *,
        lease_s: float,
        heartbeat_s: float,
        stop: threading.Event,
    ) -> None:
        self.claim = claim
        self._store = store
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._stop = stop
        self._closed = threading.Event()
        self._directive = Directive.CONTINUE
        self._renewed_at = time.monotonic()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._beat()
        known = copy_context()  # so that its events tell of the same job as ours
        self._thread = threading.Thread(
            target=known.run, args=(self._keep,), name="lease", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join(PARTING_S)  # one that hangs in the driver is left behind

    @property
    def halt(self) -> Outcome | None:
        """Why to stop, or None: a lost lease outranks the owner's wish, that a shutdown."""
        if self._directive is Directive.LOST or self._ran_out():
            return Outcome.LEASE_LOST
        if self._directive is Directive.CANCEL:
            return Outcome.CANCELLED
        if self._directive is Directive.PAUSE:
            return Outcome.PAUSED
        return Outcome.RELEASED if self._stop.is_set() else None

    def should_abort(self) -> bool:
        """Whether the attempt has to stop."""
        return self.halt is not None

    def check(self) -> None:
        """Raise `Halted` when the attempt has to stop."""
        if (outcome := self.halt) is not None:
            raise Halted(outcome)

    def _keep(self) -> None:
        while self.halt is not Outcome.LEASE_LOST and not self._closed.wait(self._heartbeat_s):
            self._beat()

    def _beat(self) -> None:
        asked_at = time.monotonic()
        try:
            self._directive = self._store.heartbeat(self.claim, lease_s=self._lease_s)
        except Exception as error:  # whatever the driver raises, the clock decides
            log.warning("heartbeat_failed", error=repr(error))
        else:
            self._renewed_at = asked_at

    def _ran_out(self) -> bool:
        return time.monotonic() - self._renewed_at >= self._lease_s
