"""What the service can answer with, as exceptions; each carries the service's own words."""

from schemas.errors import ErrorCode, Problem
from schemas.jobs import Job


class DispError(Exception):
    """Base of everything that the client raises on purpose."""


class Unavailable(DispError):
    """The service cannot be reached: check the URL and whether `disp serve` runs."""


class NotOurService(Unavailable):
    """What answers there is no DiSP service, or one of another version: check the URL."""


class IntegrityError(DispError):
    """The bytes that came do not have the sha256 of the manifest: fetch again."""


class JobFailed(DispError):
    """A job ended without success."""

    def __init__(self, job: Job) -> None:
        reason = f": {job.error.code}: {job.error.message}" if job.error else ""
        super().__init__(f"job {job.id} {job.status.value}{reason}")
        self.job = job


class ServiceError(DispError):
    """The service refused the call; `code` is from the closed list of `ErrorCode`."""

    def __init__(self, status: int, problem: Problem | None) -> None:
        message = problem.error.message if problem else f"the service answered {status}"
        super().__init__(message)
        self.status = status
        self.problem = problem

    @property
    def code(self) -> ErrorCode | None:
        """None when the answer was no problem document."""
        return self.problem.error.code if self.problem else None

    @property
    def param(self) -> str | None:
        """The part of the request that is at fault, if one is."""
        return self.problem.error.param if self.problem else None


class NotAuthorised(ServiceError):
    """The API key is missing, unknown, revoked, or lacks the scope."""


class NotFound(ServiceError):
    """There is no such object for this API key."""


class Refused(ServiceError):
    """The service does not accept this input; the message says which part and why."""


class Broken(ServiceError):
    """A fault of the service."""


def service_error(status: int, problem: Problem | None) -> ServiceError:
    """The exception for an HTTP status."""
    if status in (401, 403):
        return NotAuthorised(status, problem)
    if status == 404:
        return NotFound(status, problem)
    return Broken(status, problem) if status >= 500 else Refused(status, problem)
