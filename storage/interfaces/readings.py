"""Files as those see them who read them for their validation.

A `FileClaim` is a fencing token like a job's `Claim`: once the lease has run out and another worker
has the file, or the file was deleted, every call with the old claim raises `LeaseLost`.
"""

from dataclasses import dataclass
from typing import Protocol

from storage.interfaces.files import FileBlob, Findings
from storage.interfaces.leases import Directive


@dataclass(frozen=True)
class FileClaim:
    """The right to say what is in a file, until the lease ends; no two claims share an `owner`."""

    file: FileBlob
    tenant: str
    owner: str


class ReadingStore(Protocol):
    """Files that wait to be read."""

    def claim_file(
        self, owner: str, *, lease_s: float, file_id: str | None = None
    ) -> FileClaim | None:
        """Take the oldest file that is `uploaded` (or `file_id`, if it is): now `processing`."""
        ...

    def heartbeat_file(self, claim: FileClaim, *, lease_s: float) -> Directive:
        """Extend the lease to `lease_s` from now, unless it is lost; never raises `LeaseLost`."""
        ...

    def settle_file(self, claim: FileClaim, findings: Findings) -> None:
        """Keep what was found: the file is `processed`, or in `error` if nothing can be used."""
        ...

    def release_file(self, claim: FileClaim) -> None:
        """Hand the file back unread, no loss counted, and have it hinted at soon."""
        ...
