"""What became of the samples of a job, for lists."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from storage.interfaces.leases import Claim


class Shown(StrEnum):
    """Which samples a list shows."""

    ALL = "all"
    FLAGGED = "flagged"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REWRITTEN = "rewritten"
    KEPT = "kept"
    REMOVED = "removed"
    QUARANTINED = "quarantined"
    PASSED_THROUGH = "passed_through"


@dataclass(frozen=True)
class SampleEntry:
    """What a list shows of a sample, and where its line lies in the job's `samples.jsonl`.

    `said` and `says` are the beginnings of its first response, before and after.
    """

    position: int
    sample_id: str
    status: str
    verdict: str | None
    flagged: bool
    score: float | None
    start: int
    bytes: int
    said: str
    says: str


class SampleWriter(Protocol):
    """The part of a `SampleStore` that a worker needs."""

    def index_samples(self, claim: Claim, entries: Iterable[SampleEntry]) -> None:
        """Write what lists show, in place of an earlier attempt's; raises `LeaseLost`."""
        ...


class SampleStore(SampleWriter, Protocol):
    """Samples of jobs that have ended, for lists; the whole truth is in `samples.jsonl`."""

    def list_sample_entries(
        self,
        tenant: str,
        job_id: str,
        *,
        shown: Shown = Shown.ALL,
        after: int | None = None,
        limit: int = 50,
    ) -> tuple[Sequence[SampleEntry], bool]:
        """Return up to `limit` entries, the most suspicious first, and whether there are more.

        `after` is the position of the last one seen.
        """
        ...

    def sample_neighbours(
        self, tenant: str, job_id: str, position: int
    ) -> tuple[int | None, int | None]:
        """Return the positions before and after one, in the order of the whole list."""
        ...

    def get_sample_entry(self, tenant: str, job_id: str, position: int) -> SampleEntry:
        """Return the entry at a position of the job's file, or raise `NotFound`."""
        ...
