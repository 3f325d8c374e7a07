"""Is the process alive; can it serve."""

import threading
import time
from collections.abc import Callable
from typing import Literal
from uuid import uuid4

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.gateway import AnyGateway, Gateway
from storage.interfaces import ArtifactStore

log = structlog.get_logger()
router = APIRouter(tags=["health"])
Verdict = Literal["ok", "degraded", "unavailable"]
PROBE_EVERY_S = 10.0


class Health(BaseModel):
    """The parts and how they are; without a broker the service is slower, not away."""

    status: Verdict
    checks: dict[str, Verdict] = {}


class ArtifactProbe:
    """Puts and gets an object, at most once in `PROBE_EVERY_S`: probes come often, stores cost."""

    def __init__(self, artifacts: ArtifactStore, clock: Callable[[], float] = time.monotonic):
        """Ask `artifacts`; `clock` is in seconds."""
        self._artifacts, self._clock = artifacts, clock
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._error: Exception | None = None

    def check(self) -> None:
        """Raise what the last probe raised; ask anew when that is too long ago."""
        with self._lock:
            if self._clock() - self._asked_at >= PROBE_EVERY_S:
                self._error = self._ask()
                self._asked_at = self._clock()
            if self._error is not None:
                raise self._error

    def _ask(self) -> Exception | None:
        key, text = f"probes/{uuid4().hex}", b"ok"
        try:
            self._artifacts.create(key, text)
            read = self._artifacts.get(key)
            self._artifacts.delete(key)
        except Exception as error:
            return error
        return None if read == text else OSError(f"the store returned {read!r} for {text!r}")


@router.get("/livez")
def livez() -> Health:
    """Tell that the process answers."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"model": Health}})
def readyz(request: Request, gateway: AnyGateway, response: Response) -> Health:
    """Write to both stores and tell whether that works; 503 if not. A broker may be away."""
    probe: ArtifactProbe = request.app.state.artifact_probe
    checks: dict[str, Verdict] = {
        "jobs": _verdict("jobs", gateway.jobs.ping),
        "artifacts": _verdict("artifacts", probe.check),
        "broker": _verdict("broker", gateway.queue.ping, otherwise="degraded"),
    }
    status = _worst(checks)
    response.status_code = 503 if status == "unavailable" else 200
    return Health(status=status, checks=checks)


def probe_of(gateway: Gateway) -> ArtifactProbe:
    """Return the probe that a gateway's process shares among its requests."""
    return ArtifactProbe(gateway.artifacts)


def _verdict(part: str, ask: Callable[[], None], otherwise: Verdict = "unavailable") -> Verdict:
    try:
        ask()
    except Exception as error:
        log.error("not_ready", part=part, exc_info=error)
        return otherwise
    return "ok"


def _worst(checks: dict[str, Verdict]) -> Verdict:
    found = set(checks.values())
    order: tuple[Verdict, ...] = ("unavailable", "degraded", "ok")
    return next(verdict for verdict in order if verdict in found)
