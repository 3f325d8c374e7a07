"""An uploaded file, in the shape of OpenAI's File object."""

from enum import StrEnum
from typing import Literal

from schemas.wire import Resource


class FilePurpose(StrEnum):
    """What a file is for: to be purified, to measure with, or read by who gave the order."""

    FINE_TUNE = "fine-tune"
    EVALUATION = "evaluation"
    RESULTS = "fine-tune-results"


UPLOADABLE = (FilePurpose.FINE_TUNE, FilePurpose.EVALUATION)
"""The purposes that a client may give; results are the service's own."""


class File(Resource):
    """An uploaded dataset; `sha256` is ours, the rest is OpenAI's shape."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: FilePurpose
    status: Literal["processed"] = "processed"
    sha256: str


class FileDeleted(Resource):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
