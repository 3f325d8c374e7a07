"""What can go wrong in the engine, told so that the reader knows what to do."""

from dataclasses import dataclass

MAX_FAULTS = 100
"""How many faults an error lists; it always tells how many there are."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the data: the member and the record, its kind, the reason."""

    where: str
    code: str
    reason: str

    def __str__(self) -> str:
        """As one line of a message."""
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class Judgement:
    """What reading a dataset has found: records, usable ones, ids that came again, and faults.

    `faults` are the first MAX_FAULTS of `fault_count`. Strict validation stops early, and then the
    numbers tell of what was read.
    """

    records: int = 0
    usable: int = 0
    repeated_ids: int = 0
    fault_count: int = 0
    faults: tuple[Fault, ...] = ()


class EngineError(Exception):
    """Base of every error the engine raises on purpose.

    `code` is what a client may switch on; `param` names the field of the request that is at fault,
    where one is; `faults` lists, up to MAX_FAULTS, what is wrong with a dataset.
    """

    code: str = "engine_error"
    param: str | None = None
    faults: tuple[Fault, ...] = ()


class InvalidModelError(EngineError):
    """The model folder cannot be used; the message names the file, the key and the reason."""

    code = "invalid_model"


class RemoteCodeRefused(InvalidModelError):
    """A config asks for code of its own, which is never run."""

    code = "remote_code_refused"


class UnsafeFormat(InvalidModelError):
    """Weights in a format that can run code when it is read."""

    code = "unsafe_format"


class InvalidDatasetError(EngineError):
    """The dataset cannot be used; the message names the member, the record and the reason.

    `judgement` tells what was found in it, as far as it was read.
    """

    code = "invalid_dataset"
    judgement = Judgement()


class ArchiveMalformed(InvalidDatasetError):
    """Two readers could see different things in this archive, or one could see nothing."""

    code = "archive_malformed"


class ArchiveBomb(InvalidDatasetError):
    """The archive would unpack to more than it may."""

    code = "archive_bomb"


class UnsafeMember(InvalidDatasetError):
    """A member that is no regular file, or whose name is not safe to unpack."""

    code = "archive_unsafe_member"


class PickleRefused(InvalidDatasetError):
    """A member that runs code when the usual libraries read it."""

    code = "pickle_refused"


class DataRefused(InvalidDatasetError):
    """Strict validation found faults; the code is theirs where they all have the same."""

    def __init__(self, name: str, faults: tuple[Fault, ...], count: int) -> None:
        listed = "; ".join(map(str, faults[:3]))
        more = f"; and {count - 3} more" if count > 3 else ""
        faulty = "1 fault" if count == 1 else f"{count} faults"
        super().__init__(f"{name}: {faulty} under strict validation: {listed}{more}.")
        self.faults = faults[:MAX_FAULTS]
        codes = {fault.code for fault in faults}
        self.code = codes.pop() if len(codes) == 1 else InvalidDatasetError.code


class InvalidRequestError(EngineError):
    """The settings of the run contradict one another or the model; the message names which."""

    code = "invalid_request"


class SampleError(EngineError):
    """One sample cannot be processed; it is quarantined with this reason and the run goes on."""

    code = InvalidDatasetError.code


class PictureError(SampleError):
    """A picture that cannot be used."""


class PictureFormat(PictureError):
    """Not a still PNG, JPEG or WebP."""

    code = "image_format"


class PictureTooLarge(PictureError):
    """More pixels or more text than a picture may have."""

    code = "image_too_large"


class PictureMalformed(PictureError):
    """Broken or cut off."""

    code = "image_malformed"


class TrailingData(PictureError):
    """Bytes after the picture's end, where another format could hide."""

    code = "trailing_data"


class Aborted(EngineError):
    """The run was asked to stop; all finished work is saved and the same spec resumes it."""
