"""Is the process alive; can it serve."""

from typing import Literal
from uuid import uuid4

import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel

from api.gateway import AnyGateway, Gateway

log = structlog.get_logger()
router = APIRouter(tags=["health"])
Verdict = Literal["ok", "unavailable"]


class Health(BaseModel):
    """The parts and how they are."""

    status: Verdict
    checks: dict[str, Verdict] = {}


@router.get("/livez")
def livez() -> Health:
    """Tell that the process answers."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"model": Health}})
def readyz(gateway: AnyGateway, response: Response) -> Health:
    """Write to both stores and tell whether that works; 503 if not."""
    checks: dict[str, Verdict] = {
        "jobs": _verdict("jobs", gateway),
        "artifacts": _verdict("artifacts", gateway),
    }
    well = all(verdict == "ok" for verdict in checks.values())
    response.status_code = 200 if well else 503
    return Health(status="ok" if well else "unavailable", checks=checks)


def _verdict(part: Literal["jobs", "artifacts"], gateway: Gateway) -> Verdict:
    try:
        gateway.jobs.ping() if part == "jobs" else _write_and_delete(gateway)
    except Exception as error:
        log.error("not_ready", part=part, exc_info=error)
        return "unavailable"
    return "ok"


def _write_and_delete(gateway: Gateway) -> None:
    key = f"probes/{uuid4().hex}"
    gateway.artifacts.create(key, b"ok")
    gateway.artifacts.delete(key)
