"""Bytes that were a good or a known bad input before something happened to them."""

import struct
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

MOST_EDITS = 5
NUMBERS = (0, 1, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**62)
SIZES = {1: "B", 2: "H", 4: "I", 8: "Q"}
Draw = Callable[[st.SearchStrategy], object]


@st.composite
def mutated(draw, seeds: Sequence[bytes], repair: Callable[[bytes], bytes]) -> bytes:
    """A seed after a few edits; with its checksums made right again every other time."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, MOST_EDITS))):
        edit = draw(st.sampled_from(EDITS))
        at = draw(st.integers(0, len(data)))
        edit(draw, data, at, seeds)
    return repair(bytes(data)) if draw(st.booleans()) else bytes(data)


def set_byte(draw, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    data[at : at + 1] = bytes([draw(st.integers(0, 255))])


def set_number(draw, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    size = draw(st.sampled_from(sorted(SIZES)))
    value = draw(st.sampled_from(NUMBERS)) % 256**size
    data[at : at + size] = struct.pack(draw(st.sampled_from("<>")) + SIZES[size], value)


def insert(draw, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    data[at:at] = draw(st.binary(min_size=1, max_size=16))


def delete(draw, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    del data[at : at + draw(st.integers(1, 64))]


def repeat(draw, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    data[at:at] = data[at : at + draw(st.integers(1, 512))]


def cut(draw, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    del data[at:]


def splice(draw, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    other = draw(st.sampled_from(seeds))
    start = draw(st.integers(0, len(other)))
    data[at:] = other[start:]


EDITS = (set_byte, set_number, insert, delete, repeat, cut, splice)
