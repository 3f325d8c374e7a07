"""What a hostile input is: how it is made or sent, and what has to come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataInput:
    """An archive that is uploaded and given to a job; `model` is a folder of `weights`, if any."""

    name: str
    make: Callable[[], bytes]
    code: str | None
    validation: str = "strict"
    status: str = "failed"
    model: Callable[[Any], None] | None = None


@dataclass(frozen=True)
class CallInput:
    """A request; `send` makes it and returns the status and the code of the answer."""

    name: str
    send: Callable[[Any], tuple[int, str | None]]
    status: int
    code: str | None


Input = DataInput | CallInput
