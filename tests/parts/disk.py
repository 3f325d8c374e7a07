"""A disk that nobody waits for: tests kill processes, and none of them cuts the power.

What a killed process has written is kept by the system's cache. What must be durable is tested by
asking whether it is synced, not by losing it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from storage.sql import engine

DURABLE = engine.SQLITE_PRAGMAS
"""What connections to SQLite begin with outside of tests."""


@contextmanager
def unsynced() -> Iterator[None]:
    """Let nothing in this process wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "SQLITE_PRAGMAS", (*DURABLE, "PRAGMA synchronous=OFF"))
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
