"""An uploaded file, in the shape of OpenAI's File object."""

from enum import StrEnum
from typing import Literal, get_args

from pydantic import Field

from schemas.jobs import DataFault
from schemas.requests import Validation
from schemas.wire import Resource


class FilePurpose(StrEnum):
    """What a file is for: to be purified, to measure with, to start from, or to be read.

    A `checkpoint` is a projector in safetensors; results are what a job has published.
    """

    FINE_TUNE = "fine-tune"
    EVALUATION = "evaluation"
    CHECKPOINT = "checkpoint"
    RESULTS = "fine-tune-results"


UploadablePurpose = Literal[FilePurpose.FINE_TUNE, FilePurpose.EVALUATION, FilePurpose.CHECKPOINT]
"""The purposes that a client may give; results are the service's own."""
UPLOADABLE: tuple[FilePurpose, ...] = get_args(UploadablePurpose)
DATASETS = frozenset({FilePurpose.FINE_TUNE, FilePurpose.EVALUATION})
"""The purposes of archives that a worker reads as soon as they are there."""


class FileStatus(StrEnum):
    """Whether a file was read: not yet, just now, and can be used, or nothing of it can be."""

    UPLOADED = "uploaded"
    PROCESSING = "processing"
    PROCESSED = "processed"
    ERROR = "error"


class File(Resource):
    """An uploaded dataset or projector; `sha256` is ours, the rest is OpenAI's shape.

    `status_details` says of a file in `error` why nothing of it can be used.
    """

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: FilePurpose
    status: FileStatus
    status_details: str | None = None
    sha256: str


class FileRefusal(Resource):
    """Why a dataset cannot be used at all; the code is one that a job can fail with."""

    code: str
    message: str


class FileValidation(Resource):
    """What was found in a file by whoever read it last: the job `job_id`, or none: its upload.

    `records` were read, of which `usable` can be trained on or measured with. `faults` lists the
    first hundred of `fault_count`; `error` is there if nothing of the file was used. `mode` is the
    job's validation, or `quarantine`: `strict` finds more, and may stop early.
    """

    file_id: str
    object: Literal["file.validation"] = "file.validation"
    job_id: str | None = None
    validated_at: float
    mode: Validation
    records: int
    usable: int
    repeated_ids: int
    fault_count: int
    faults: list[DataFault] = Field(default_factory=list)
    error: FileRefusal | None = None


class FileDeleted(Resource):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
