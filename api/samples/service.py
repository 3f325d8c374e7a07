"""Reading samples out of a job's published `samples.jsonl`, line by line, never as a whole.

A cursor is the place in the file where the next line begins, so a page costs what it shows and
what its filter passes over, not what lies before it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from api.gateway import Gateway
from api.jobs.service import artifact
from schemas.samples import Sample, SampleSaliency, SampleStatus, Verdict
from schemas.wire import Page
from storage.errors import NotFound

SAMPLES = "samples.jsonl"
MAX_SCANNED_BYTES = 32 << 20
HOTTEST = 15
"""The largest hexadecimal digit."""


@dataclass(frozen=True)
class Wanted:
    """Which samples a page is to show; None lets all pass."""

    status: SampleStatus | None = None
    verdict: Verdict | None = None
    min_score: float | None = None

    def fits(self, sample: Sample) -> bool:
        """Tell whether a sample is wanted; one without a score is below any."""
        if self.min_score is not None and (sample.score is None or sample.score < self.min_score):
            return False
        status_fits = self.status in (None, sample.status)
        return status_fits and self.verdict in (None, sample.verdict)


def page(
    gateway: Gateway, tenant: str, job_id: str, wanted: Wanted, start: int, limit: int
) -> Page[Sample]:
    """Return up to `limit` wanted samples from the place `start` on."""
    item = artifact(gateway, tenant, job_id, SAMPLES)
    _require_line_start(gateway, item.key, start, item.bytes)
    found: list[Sample] = []
    end = start
    for line in _lines(gateway, item.key, start):
        end += len(line)
        sample = _sample(line)
        if wanted.fits(sample):
            found.append(sample)
        if len(found) == limit or end - start >= MAX_SCANNED_BYTES:
            break
    return Page(data=found, has_more=end < item.bytes, first_id=str(start), last_id=str(end))


def find(gateway: Gateway, tenant: str, job_id: str, sample_id: str) -> Sample:
    """Return one sample or raise `NotFound`."""
    item = artifact(gateway, tenant, job_id, SAMPLES)
    for line in _lines(gateway, item.key, 0):
        record = json.loads(line)
        if record["id"] == sample_id:
            return resource(record)
    raise NotFound(sample_id)


def saliency(gateway: Gateway, tenant: str, job_id: str, sample_id: str) -> SampleSaliency:
    """Return the map of a sample, or raise `NotFound` where the job has made none of it."""
    heat = find(gateway, tenant, job_id, sample_id).heat
    if not heat:
        raise NotFound(sample_id)
    values = [[int(digit, 16) / HOTTEST for digit in row] for row in heat]
    return SampleSaliency(
        job_id=job_id,
        sample_id=sample_id,
        rows=len(values),
        columns=len(values[0]),
        values=values,
    )


def _require_line_start(gateway: Gateway, key: str, start: int, size: int) -> None:
    if start == 0:
        return
    if start > size or b"".join(gateway.artifacts.open(key, start=start - 1, length=1)) != b"\n":
        raise NotFound(str(start))


def _lines(gateway: Gateway, key: str, start: int) -> Iterator[bytes]:
    """Yield whole lines with their ends, holding one chunk and one line at a time."""
    rest = b""
    for chunk in gateway.artifacts.open(key, start=start):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _sample(line: bytes) -> Sample:
    return resource(json.loads(line))


def resource(record: dict[str, Any]) -> Sample:
    """Return a line of the file as clients see it."""
    changed = record.pop("changed", None)
    verdict = None if changed is None else Verdict.CHANGED if changed else Verdict.UNCHANGED
    return Sample(**record | {"verdict": verdict})
