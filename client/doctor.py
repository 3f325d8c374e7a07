"""`disp doctor`: looks at every part of a deployment and says what to do about it.

Each check is a function that returns what it found, or raises `Wrong` with the remedy.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

from client.errors import DispError
from storage.interfaces import ArtifactStore, JobStore

RIVALS = 8
MAX_SKEW_S = 5.0
MIN_FREE_BYTES = 10 * 1024**3
PATIENCE_S = 10.0


class Verdict(StrEnum):
    """`skipped`: there was nothing to look at, or an earlier finding stands in the way."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's; `remedy` says what to do unless all is well."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same for machines."""
        return asdict(self)


class Wrong(Exception):
    """Something does not work; `remedy` says what to do."""

    verdict = Verdict.FAILED

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


class Doubtful(Wrong):
    """Something works, but not as well as it should."""

    verdict = Verdict.WARNING


class Skipped(Exception):
    """There is nothing to look at; the message says why."""


@dataclass(frozen=True)
class Deployment:
    """What is to be looked at; None stands for what is not configured here."""

    database_url: str | None
    artifacts_url: str | None
    broker_url: str | None
    work_dir: Path | None
    url: str | None
    api_key: str | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Deployment":
        """The deployment that this environment's gateway or worker would belong to."""
        work_dir = environment.get("DISP_WORK_DIR")
        return cls(
            database_url=environment.get("DISP_DATABASE_URL"),
            artifacts_url=environment.get("DISP_ARTIFACTS_URL"),
            broker_url=environment.get("DISP_BROKER_URL"),
            work_dir=Path(work_dir) if work_dir else None,
            url=environment.get("DISP_URL"),
            api_key=environment.get("DISP_API_KEY"),
        )


def examine(deployment: Deployment) -> Iterator[Finding]:
    """Yield a finding for each check, in the order in which things depend on one another."""
    yield _look("versions", check_versions)
    yield from _look_at_stores(deployment)
    yield _look("broker", lambda: check_broker(deployment.broker_url))
    yield _look("disk", lambda: check_disk(deployment.work_dir))
    yield _look("gpu", check_gpu)
    yield _look("gateway", lambda: check_gateway(deployment.url, deployment.api_key))


def healthy(findings: list[Finding]) -> bool:
    """Tell whether nothing failed; a warning is no failure."""
    return all(finding.verdict is not Verdict.FAILED for finding in findings)


def check_versions() -> str:
    """What runs here."""
    from storage.telemetry.build import build_facts

    build = build_facts()
    torch = f"torch {build.torch}" if build.torch else "without torch (a gateway's image)"
    return f"disp {build.version}, {torch}"


def check_database(url: str | None) -> JobStore:
    """Reachable, of this version, writable; the caller closes it."""
    from sqlalchemy.exc import SQLAlchemyError

    from storage.connect import open_job_store
    from storage.errors import MigrationMissing, StoreAway

    if url is None:
        raise Wrong("no DISP_DATABASE_URL", "set DISP_DATABASE_URL (or DISP_DATABASE_URL_FILE)")
    try:
        store = open_job_store(url)
    except MigrationMissing as error:
        raise Wrong(f"not at this version's schema: {error}", "run `disp prepare`") from error
    except (StoreAway, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        raise Wrong(f"unreachable: {_short(cause)}", "check host, port, user, password") from error
    try:
        store.ping()
    except StoreAway as error:
        store.close()
        raise Wrong(
            f"not writable: {_short(error.__cause__ or error)}",
            "grant write access, or end whoever holds the lock",
        ) from error
    return store


def check_clock(store: JobStore) -> str:
    """Between this machine and the database; webhooks' signatures need the true time."""
    before = time.time()
    there = store.now()
    skew = there - (before + time.time()) / 2
    if abs(skew) > MAX_SKEW_S:
        raise Doubtful(f"{skew:+.1f} s against the database", "run an NTP client on both machines")
    return f"{skew:+.2f} s against the database"


def check_models(store: JobStore) -> str:
    """Every registered folder is here; only a worker's machine needs them."""
    models = store.list_model_records()
    if not models:
        raise Wrong("no model is registered", "run `disp prepare`")
    missing = [m.id for m in models if not (Path(m.path) / "config.json").is_file()]
    if missing:
        raise Doubtful(
            f"not on this machine: {', '.join(missing)}",
            "if jobs run here, mount the models at the paths that they were registered with",
        )
    return f"{len(models)} registered and present"


def check_artifacts(url: str | None) -> str:
    """Put and get; and, where it can be had, of many that create one key exactly one wins."""
    from storage.connect import open_artifact_store
    from storage.errors import AlreadyExists

    if url is None:
        raise Wrong("no DISP_ARTIFACTS_URL", "set DISP_ARTIFACTS_URL (file:///DIR or s3://BUCKET)")
    key = f"probes/{uuid4().hex}"
    try:
        store = open_artifact_store(url)
        winners = _race(store, key, AlreadyExists)
        text = store.get(key)
        store.delete(key)
    except Exception as error:  # whatever a store's driver raises is a finding
        raise Wrong(_short(error), "check URL, credentials, region and the bucket") from error
    if text not in winners:
        raise Wrong("what was put is not what is got", "use a store that keeps what it accepts")
    if len(winners) > 1:
        raise Doubtful(
            f"{len(winners)} of {RIVALS} won the race for one key",
            "jobs end once all the same; a store that honours If-None-Match: * would be stricter",
        )
    return f"put and get work; of {RIVALS} rivals one created the key"


def check_broker(url: str | None) -> str:
    """Answers, if one is configured."""
    from api.queue import open_queue

    if url is None:
        raise Skipped("no DISP_BROKER_URL: runners poll the database")
    try:
        open_queue(url).ping()
    except Exception as error:  # whatever the transport raises is a finding
        raise Doubtful(
            f"away: {_short(error)}",
            "start it; until then jobs wait for the pods and runners that poll",
        ) from error
    return "answers"


def check_disk(work_dir: Path | None) -> str:
    """Room for a worker's stages and inputs."""
    if work_dir is None:
        raise Skipped("no DISP_WORK_DIR: no worker's machine")
    place = next(folder for folder in (work_dir, *work_dir.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < MIN_FREE_BYTES:
        raise Doubtful(f"{free / 1024**3:.1f} GiB free in {place}", "free some, or mount a volume")
    return f"{free / 1024**3:.0f} GiB free in {place}"


def check_gpu() -> str:
    """Seen through the driver, without torch."""
    from storage.telemetry.metrics import gpu_memory

    seen = list(gpu_memory())
    if not seen:
        raise Skipped("none visible: jobs would run on the CPU here")
    return f"{len(seen)} visible"


def check_gateway(url: str | None, api_key: str | None) -> str:
    """Ready, of this version, and the key opens it."""
    import httpx2

    from client.sdk import Client
    from storage.telemetry.build import build_facts

    if not url or not api_key:
        raise Skipped("no DISP_URL and DISP_API_KEY")
    try:
        with httpx2.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as http:
            ready = http.get("/readyz")
            version = http.get("/openapi.json").json()["info"]["version"]
        with Client(url, api_key, patience_s=PATIENCE_S) as client:
            models = len(client.models())
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError) as error:
        raise Wrong(f"unreachable: {_short(error)}", "check DISP_URL, and that it runs") from error
    except DispError as error:
        raise Wrong(_short(error), "check DISP_API_KEY, or issue one: `disp prepare`") from error
    if ready.status_code != 200:
        raise Wrong(f"not ready: {ready.text[:200]}", "read the gateway's log")
    if version != build_facts().version:
        raise Doubtful(f"is version {version}", "roll out the same version everywhere")
    return f"ready, version {version}, {models} models"


def _look_at_stores(deployment: Deployment) -> Iterator[Finding]:
    opened: list[JobStore] = []

    def database() -> str:
        opened.append(check_database(deployment.database_url))
        return "reachable, migrated, writable"

    def after(check: Callable[[JobStore], str]) -> str:
        if not opened:
            raise Skipped("the database comes first")
        return check(opened[0])

    try:
        yield _look("database", database)
        yield _look("clock", lambda: after(check_clock))
        yield _look("models", lambda: after(check_models))
    finally:
        for store in opened:
            store.close()
    yield _look("artifacts", lambda: check_artifacts(deployment.artifacts_url))


def _look(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, Verdict.OK, look())
    except Wrong as wrong:
        return Finding(check, wrong.verdict, str(wrong), wrong.remedy)
    except Skipped as skipped:
        return Finding(check, Verdict.SKIPPED, str(skipped))


def _race(store: ArtifactStore, key: str, taken: type[Exception]) -> list[bytes]:
    def rival(number: int) -> bytes | None:
        text = f"rival {number}".encode()
        try:
            store.create(key, text)
        except taken:
            return None
        return text

    with ThreadPoolExecutor(RIVALS) as pool:
        return [text for text in pool.map(rival, range(RIVALS)) if text is not None]


def _short(error: BaseException) -> str:
    lines = (str(error) or type(error).__name__).strip().splitlines()
    return lines[0][:200]
