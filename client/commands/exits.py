"""How a command ends when it does not end well: a line on stderr and a status for scripts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from client.commands.output import announce

FAILED, USAGE, REFUSED, NOT_AUTHORISED, UNAVAILABLE, STOPPED = 1, 2, 3, 4, 5, 130


@contextmanager
def refusals() -> Iterator[None]:
    """Leave with `REFUSED` where the engine refuses what it was given."""
    from disp_engine.errors import EngineError

    try:
        yield
    except EngineError as error:
        leave(f"error: {error}", REFUSED)


def leave(text: str, code: int) -> NoReturn:
    """Say why and end with this status."""
    announce(text)
    raise SystemExit(code)
