"""Ids that sort by time of creation: a noun and a UUIDv7 in hex."""

import secrets
import threading
import time

_lock = threading.Lock()
_last = 0


def new_id(noun: str) -> str:
    """Return `<noun>_<32 hex digits>`; ids of one process sort strictly in order of creation."""
    global _last
    with _lock:
        _last = max(_last + 1, _uuid7())
        return f"{noun}_{_last:032x}"


def _uuid7() -> int:
    """RFC 9562: 48 bits of milliseconds, version 7, 12 random bits, variant 2, 62 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    high, low = secrets.randbits(12), secrets.randbits(62)
    return milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low
