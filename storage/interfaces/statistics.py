"""Numbers for operators."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from schemas.jobs import JobStatus


@dataclass(frozen=True)
class Statistics:
    """How many jobs there are in each status; how long the oldest of each queue waits, seconds."""

    jobs: Mapping[JobStatus, int]
    oldest_age_s: Mapping[str, float]


class StatisticsStore(Protocol):
    """Numbers for operators, over all tenants."""

    def now(self) -> float:
        """Return the database's clock in Unix seconds."""
        ...

    def statistics(self) -> Statistics:
        """Return the numbers as they are now."""
        ...
