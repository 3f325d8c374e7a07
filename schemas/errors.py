"""Errors on the wire: RFC 9457 problems with OpenAI's `error` member and a closed list of codes."""

from enum import StrEnum

from pydantic import AliasChoices, Field

from schemas.wire import Resource


class ErrorCode(StrEnum):
    """Every code the service can answer with or fail a job with; clients may rely on the list."""

    UNAUTHENTICATED = "unauthenticated"
    """No API key, or one that is unknown or revoked (401)."""
    FORBIDDEN = "forbidden"
    """The API key lacks the scope that this call needs (403)."""
    NOT_FOUND = "not_found"
    """No such route or object, or it belongs to another tenant (404)."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """The route exists but not with this method (405)."""
    FILE_IN_USE = "file_in_use"
    """An unfinished job still reads this file (409)."""
    UPLOAD_NOT_PENDING = "upload_not_pending"
    """The upload was completed, cancelled or has expired (409)."""
    UPLOAD_INCOMPLETE = "upload_incomplete"
    """The parts do not add up to what was announced, or one is too small (409)."""
    PART_CONFLICT = "part_conflict"
    """A part with this number is held already, with other bytes (409)."""
    PART_BUSY = "part_busy"
    """Another request is writing this part; try again (409)."""
    DIGEST_MISMATCH = "digest_mismatch"
    """The bytes do not have the digest that was announced (422)."""
    FILE_NOT_VALIDATED = "file_not_validated"
    """Nobody has read this file yet, so nobody knows what is in it (409)."""
    NOT_A_DATASET = "not_a_dataset"
    """A checkpoint holds no records that could be counted (404)."""
    FILE_IS_RESULT = "file_is_result"
    """The file is a job's result and goes when the job is deleted (409)."""
    JOB_NOT_FINISHED = "job_not_finished"
    """The job has published no artifacts: it is unfinished, or did not succeed (409)."""
    JOB_STATUS_CONFLICT = "job_status_conflict"
    """The job's present status does not allow this change (409)."""
    IDEMPOTENCY_IN_FLIGHT = "idempotency_in_flight"
    """A request with the same Idempotency-Key is being served; try again (409)."""
    REQUEST_TIMEOUT = "request_timeout"
    """The body comes too slowly (408)."""
    PAYLOAD_TOO_LARGE = "payload_too_large"
    """The body is longer than the service accepts (413)."""
    UNSUPPORTED_FORMAT = "unsupported_format"
    """The upload is neither a zip nor a tar archive (415)."""
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    """The Range header asks for bytes that the object does not have (416)."""
    VALIDATION_ERROR = "validation_error"
    """The request does not have the documented shape (422)."""
    FILE_NOT_FOUND = "file_not_found"
    """The request names a file that does not exist; `param` says where (422)."""
    MODEL_NOT_FOUND = "model_not_found"
    """The request names a model that does not exist (422)."""
    WEBHOOK_NOT_FOUND = "webhook_not_found"
    """The request names a webhook endpoint that does not exist (422)."""
    URL_REFUSED = "url_refused"
    """The service sends nothing to such a URL: it is not https, or not public (422)."""
    LIMIT_REACHED = "limit_reached"
    """There are as many of these objects as one tenant may have (409)."""
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    """The Idempotency-Key was used before with another body (422)."""
    RATE_LIMITED = "rate_limited"
    """The tenant sends more requests than it may; `Retry-After` says when to go on (429)."""
    QUOTA_EXCEEDED = "quota_exceeded"
    """The tenant has as many unfinished jobs as it may have (429)."""
    BAD_REQUEST = "bad_request"
    """The body cannot be parsed at all (400)."""
    INTERNAL_ERROR = "internal_error"
    """A fault of the service (500)."""
    UNAVAILABLE = "unavailable"
    """A part that the service depends on does not answer; try again (503)."""

    INVALID_DATASET = "invalid_dataset"
    """A dataset cannot be read as LLaVA JSON with images (422, and why a job failed)."""
    ARCHIVE_MALFORMED = "archive_malformed"
    """A job failed: two readers could see different things in the archive, or one nothing."""
    ARCHIVE_BOMB = "archive_bomb"
    """A job failed: the archive unpacks to too much, or holds another archive."""
    ARCHIVE_UNSAFE_MEMBER = "archive_unsafe_member"
    """A job failed: a member that is no regular file, or whose name is not safe to unpack."""
    PICKLE_REFUSED = "pickle_refused"
    """A job failed: a member that runs code when the usual libraries read it."""
    IMAGE_FORMAT = "image_format"
    """A job failed: a picture is not a still PNG, JPEG or WebP, or not what its name says."""
    IMAGE_TOO_LARGE = "image_too_large"
    """A job failed: a picture has too many pixels, or carries too much text."""
    IMAGE_MALFORMED = "image_malformed"
    """A job failed: a picture is broken or cut off."""
    TRAILING_DATA = "trailing_data"
    """A job failed: bytes follow the end of a picture."""
    INVALID_MODEL = "invalid_model"
    """A job failed: the checkpoint cannot be loaded."""
    REMOTE_CODE_REFUSED = "remote_code_refused"
    """A job failed: a config of the checkpoint asks for code of its own."""
    UNSAFE_FORMAT = "unsafe_format"
    """Weights in a format that can run code when it is read (415, and why a job failed)."""
    INVALID_REQUEST = "invalid_request"
    """The settings do not fit the model or the data (422, and why a job failed)."""
    ENGINE_ERROR = "engine_error"
    """A job failed: the engine broke, in several attempts in a row if trying again could help."""
    WORKER_LOST = "worker_lost"
    """A job failed: its workers died too often in a row without progress."""


class ErrorBody(Resource):
    """What an OpenAI client reads of an error."""

    message: str
    type: str
    param: str | None = None
    code: ErrorCode


class FieldError(Resource):
    """One field at fault: a JSON pointer into the part of the request that `location` names."""

    pointer: str
    location: str = Field(serialization_alias="in", validation_alias=AliasChoices("in", "location"))
    detail: str


class Problem(Resource):
    """An RFC 9457 problem document that OpenAI's clients understand too."""

    type: str
    title: str
    status: int
    detail: str
    error: ErrorBody
    errors: list[FieldError] = Field(default_factory=list)
