"""Errors that every store raises; an exception's docstring is its message."""


class StorageError(Exception):
    """Something the stores refuse."""

    def __str__(self) -> str:
        """Return the class's docstring, then what was at hand."""
        what = (type(self).__doc__ or "").strip()
        return f"{what} [{', '.join(map(str, self.args))}]" if self.args else what


class NotFound(StorageError):
    """No such object for this tenant: check the id and the API key."""


class UnknownFile(StorageError):
    """The request names a file that does not exist: upload it first."""

    def __init__(self, param: str) -> None:
        """Remember which field of the request is at fault, as a JSON pointer."""
        super().__init__(param)
        self.param = param


class UnusableFile(StorageError):
    """Nothing of the file that the request names can be used: its validation says why."""

    def __init__(self, param: str) -> None:
        """Remember which field of the request is at fault, as a JSON pointer."""
        super().__init__(param)
        self.param = param


class UnknownModel(StorageError):
    """The request names no model or revision that there is: GET /v1/models lists them."""


class WrongKind(StorageError):
    """The method needs another kind of model: GET /v1/models tells the kind of each."""


class UnknownWebhook(StorageError):
    """The request names a webhook endpoint that does not exist: create it first."""


class TooManyWebhooks(StorageError):
    """This tenant has as many webhook endpoints as it may have: delete one first."""


class DeliveryLost(StorageError):
    """Another sender has this delivery by now: what became of ours is not to be recorded."""


class IdempotencyKeyReused(StorageError):
    """This Idempotency-Key was used with another body: choose a new key."""


class IdempotencyInFlight(StorageError):
    """A request with this Idempotency-Key is being served: send this one again in a moment."""


class FileInUse(StorageError):
    """An unfinished job reads this file: cancel the job or wait for its end."""


class UploadNotPending(StorageError):
    """The upload was completed, cancelled or has expired: begin a new one."""


class UploadIncomplete(StorageError):
    """The parts are not the announced bytes: each but the last has the length `part_size`."""


class PartConflict(StorageError):
    """This part is already held with other bytes: cancel the upload and begin a new one."""


class PartBusy(StorageError):
    """Another request is writing this part: try again in a moment."""


class DigestMismatch(StorageError):
    """The bytes that arrived do not have the announced digest: send them again."""


class FileIsResult(StorageError):
    """This file is a job's result: it goes when the job is deleted."""


class JobStatusConflict(StorageError):
    """The job's present status does not allow this: GET the job to see its status."""


class QuotaExceeded(StorageError):
    """This tenant has too many unfinished jobs: wait for one to end, or cancel one."""


class LeaseLost(StorageError):
    """Another worker may own this job or file by now: stop the engine and publish nothing."""


class AlreadyExists(StorageError):
    """The key is taken and create-only: read what is there and adopt it."""


class KeyRefused(StorageError):
    """A key is a relative path of plain names: it has no `..`, no empty part and no leading `/`."""


class StoreAway(StorageError):
    """A store cannot be reached or is locked by others: try again in a moment."""


class MigrationMissing(StorageError):
    """The database is not at this version's schema: run `storage.migrate.upgrade(url)`."""
