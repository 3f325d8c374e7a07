"""Shares of a job, for several workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from storage.interfaces.leases import Claim, Directive, JobInputs


@dataclass(frozen=True)
class Shard:
    """Samples `first` to `last` (excluded) of a stage that is kept in `folder`."""

    folder: str
    first: int
    last: int


@dataclass(frozen=True)
class ShardClaim:
    """The right of a worker to help with a job's shards, for as long as it renews its leases."""

    job_id: str
    tenant: str
    owner: str


@dataclass(frozen=True)
class Turn:
    """What there is to do in a folder: a shard to work on, or None; `unfinished` counts the rest.

    `done` counts the samples of shards that are stored.
    """

    shard: Shard | None
    unfinished: int
    done: int


class ShardStore(Protocol):
    """Shares of one job, worked on by several workers; whoever stores a shard first has won.

    The results of a shard are a function of the job alone, so a shard that two have worked on is
    no harm: leases only keep them from doing so for long.
    """

    def open_shards(self, claim: Claim, shards: Sequence[Shard]) -> None:
        """Offer shards, those apart that are there already; raises `LeaseLost`."""
        ...

    def find_help_wanted(self, owner: str, job_id: str | None = None) -> ShardClaim | None:
        """Return the oldest running job (or `job_id`, if it is one) with a shard to be taken."""
        ...

    def shard_inputs(self, claim: ShardClaim) -> JobInputs:
        """Return what the job works on, or raise `LeaseLost` when it is at work no more."""
        ...

    def take_shard(
        self, claim: ShardClaim, folder: str, *, lease_s: float, attempt: int | None = None
    ) -> Turn:
        """Lease the first shard of a folder that is open, or whose lease has ended.

        The job's own attempt gives its number: shards of its earlier attempts are then free.
        """
        ...

    def finish_shard(self, claim: ShardClaim, shard: Shard) -> None:
        """Say that the shard's files are stored; harmless when it is done, or gone."""
        ...

    def finished_shards(self, claim: ShardClaim) -> Sequence[Shard]:
        """Return all shards of the job whose files are stored."""
        ...

    def renew_shards(self, claim: ShardClaim, *, lease_s: float) -> Directive:
        """Extend the helper's leases; `LOST` once the job is at work no more."""
        ...

    def release_shards(self, claim: ShardClaim) -> None:
        """Let others take at once what this owner holds."""
        ...
