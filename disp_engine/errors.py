"""What can go wrong in the engine, told so that the reader knows what to do."""


class EngineError(Exception):
    """Base of every error the engine raises on purpose.

    `param` names the field of the request that is at fault, where one is.
    """

    param: str | None = None


class InvalidModelError(EngineError):
    """The model folder cannot be used; the message names the file, the key and the reason."""


class InvalidDatasetError(EngineError):
    """The dataset cannot be used; the message names the member, the record and the reason."""


class InvalidRequestError(EngineError):
    """The settings of the run contradict one another or the model; the message names which."""


class SampleError(EngineError):
    """One sample cannot be processed; it is quarantined with this reason and the run goes on."""


class Aborted(EngineError):
    """The run was asked to stop; all finished work is saved and the same spec resumes it."""
