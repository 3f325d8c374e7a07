"""What a file's first bytes say of it as weights; no tensor is read here."""

from typing import BinaryIO

from api.errors import UnsafeFormat

LARGEST_HEADER = 16 << 20
"""Bytes, as the engine has it."""
LENGTH_BYTES = 8


def require_safetensors(stream: BinaryIO) -> None:
    """Raise `UnsafeFormat` for what does not begin as safetensors; leaves the stream at 0.

    A header's length in eight bytes, and then JSON: no pickle and no archive begins so. The engine
    judges the header and every value.
    """
    stream.seek(0)
    length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
    begun = stream.read(1)
    stream.seek(0)
    if not 2 <= length <= LARGEST_HEADER or begun != b"{":
        raise UnsafeFormat()
