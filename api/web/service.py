"""What the pages show, read from the stores."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from api.gateway import Gateway
from api.jobs.service import artifact
from api.samples.service import SAMPLES, resource
from api.web.curves import Curve, curves
from api.web.diff import Piece, compare
from schemas.jobs import Event, Job
from schemas.reports import Report
from schemas.samples import Sample
from storage.errors import NotFound
from storage.interfaces import SampleEntry, Shown

EVENTS = 40
POINTS = 240
ROWS = 50
EXPORTED_AT_ONCE = 1000
PREVIEWS = "previews.bin"


@dataclass(frozen=True)
class JobView:
    """A job with its last events, the newest first, and its curves."""

    job: Job
    events: Sequence[Event]
    curves: list[Curve]

    @property
    def verdict(self) -> dict[str, Any] | None:
        """What the report says of poison, once there is one."""
        return (self.job.result or {}).get("verdict")

    @property
    def live(self) -> bool:
        """Whether the page has to be read again."""
        return not self.job.status.terminal


@dataclass(frozen=True)
class TurnView:
    """One response before and after, in pieces."""

    before: list[Piece]
    after: list[Piece] | None


@dataclass(frozen=True)
class SampleView:
    """A sample with what differs, and its neighbours in the list."""

    entry: SampleEntry
    sample: Sample
    turns: list[TurnView]
    previous: int | None
    next: int | None

    @property
    def hidden(self) -> int | None:
        """How many tokens were hidden for its first turn."""
        masked = self.sample.masked_tokens
        return masked[0] if isinstance(masked, list) and masked else None


def job_view(gateway: Gateway, tenant: str, job_id: str) -> JobView:
    """Return what the page of a job shows."""
    job = gateway.jobs.get_job(tenant, job_id)
    metrics = gateway.jobs.metric_curve(tenant, job_id, most=POINTS)
    return JobView(job, gateway.jobs.last_events(tenant, job_id, limit=EVENTS), curves(metrics))


def sample_view(gateway: Gateway, tenant: str, job_id: str, position: int) -> SampleView:
    """Return one sample, read from its own place in the published file."""
    entry = gateway.jobs.get_sample_entry(tenant, job_id, position)
    before, after = gateway.jobs.sample_neighbours(tenant, job_id, position)
    sample = _sample(gateway, tenant, job_id, entry)
    rewritten: Sequence[str | None] = sample.purified or [None] * len(sample.original)
    turns = [_turn(old, new) for old, new in zip(sample.original, rewritten, strict=False)]
    return SampleView(entry, sample, turns, before, after)


def preview(gateway: Gateway, tenant: str, job_id: str, position: int) -> tuple[bytes, str]:
    """Return the bytes and the type of a sample's small picture, or raise `NotFound`."""
    entry = gateway.jobs.get_sample_entry(tenant, job_id, position)
    found = _sample(gateway, tenant, job_id, entry).preview
    if found is None:
        raise NotFound(str(position))
    item = artifact(gateway, tenant, job_id, PREVIEWS)
    content = gateway.artifacts.open(item.key, start=found.offset, length=found.bytes)
    return b"".join(content), found.type


def report(gateway: Gateway, tenant: str, job_id: str) -> Report:
    """Return the report of a succeeded job."""
    item = artifact(gateway, tenant, job_id, "report.json")
    return Report.model_validate_json(gateway.artifacts.get(item.key))


def has_artifact(gateway: Gateway, tenant: str, job_id: str, name: str) -> bool:
    """Tell whether the job has published a file of this name."""
    try:
        artifact(gateway, tenant, job_id, name)
    except NotFound:
        return False
    return True


def all_entries(gateway: Gateway, tenant: str, job_id: str, shown: Shown) -> Iterator[SampleEntry]:
    """Yield all entries of a list, a page at a time; refuse before the first one."""
    first = gateway.jobs.list_sample_entries(tenant, job_id, shown=shown, limit=EXPORTED_AT_ONCE)

    def pages() -> Iterator[SampleEntry]:
        entries, more = first
        while True:
            yield from entries
            if not more:
                return
            entries, more = gateway.jobs.list_sample_entries(
                tenant, job_id, shown=shown, after=entries[-1].position, limit=EXPORTED_AT_ONCE
            )

    return pages()


def _sample(gateway: Gateway, tenant: str, job_id: str, entry: SampleEntry) -> Sample:
    item = artifact(gateway, tenant, job_id, SAMPLES)
    line = b"".join(gateway.artifacts.open(item.key, start=entry.start, length=entry.bytes))
    return resource(json.loads(line))


def _turn(old: str, new: str | None) -> TurnView:
    if new is None:
        return TurnView([Piece(old, False)], None)
    return TurnView(*compare(old, new))
