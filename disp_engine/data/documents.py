"""JSON arrays and JSON lines, one record in memory at a time.

A fault inside one record leaves the others readable and is told with that record; what spoils the
document from there on is an error. Duplicate keys, NaN, infinities, numbers too large for a double
and halves of surrogate pairs are faults: other readers take them differently or not at all.
"""

import codecs
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disp_engine.errors import InvalidDatasetError

CHUNK = 1 << 16
LONGEST_RECORD = 1 << 20
"""Characters."""
DEEPEST = 32
MAX_RECORDS = 2_000_000
_BEHIND = tuple(" \t\n\r,]")
_SPACE = re.compile(r"[ \t\n\r]*")
_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Parsed:
    """One record, the line on which it begins, and what is wrong with its JSON."""

    value: Any
    line: int
    faults: Sequence[str] = ()


def read_records(path: Path, name: str) -> Iterator[Parsed]:
    """Yield the records of the file at `path`, which the archive calls `name`."""
    lines = name.lower().endswith(".jsonl")
    try:
        for count, parsed in enumerate(_lines(path) if lines else _array(path)):
            if count >= MAX_RECORDS:
                raise InvalidDatasetError(f"{name}: more than {MAX_RECORDS} records.")
            yield parsed
    except _Malformed as error:
        raise InvalidDatasetError(f"{name}: {error}.") from error
    except UnicodeDecodeError as error:
        raise InvalidDatasetError(f"{name}: not UTF-8: {error.reason}.") from error


class _Malformed(ValueError):
    """The document cannot be read on."""


class _Decoder:
    """The standard library's decoder, which takes note where it would be lenient."""

    def __init__(self) -> None:
        self._faults: list[str] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_float=self._float,
        )

    def decode(self, text: str, at: int) -> tuple[Any, int, list[str]]:
        """Return a value, where it ends, and its faults; raises ValueError, RecursionError."""
        self._faults = []
        value, end = self._decoder.raw_decode(text, at)
        if _too_deep(value):
            self._faults.append(f"nested deeper than {DEEPEST}")
        elif _ESCAPE.search(text, at, end) and _SURROGATE.search(_written(value)):
            self._faults.append("half a surrogate pair is no text")
        return value, end, self._faults

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = sorted(key[:40] for key in found)[:8]
            self._faults.append(f"the object with keys {keys} repeats a key")
        return found

    def _constant(self, text: str) -> None:
        self._faults.append(f"{text} is not JSON")

    def _float(self, text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            self._faults.append(f"{text[:40]} is too large for a number")
            return 0.0
        return value


class _Window:
    """The part of a text that has not been read yet, and the number of the line it begins on."""

    def __init__(self, path: Path) -> None:
        self._pieces = _decoded(path)
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def fill(self) -> None:
        """Forget what was read and take one more piece."""
        piece = next(self._pieces, None)
        self.ended = piece is None
        self.text, self.at = self.text[self.at :] + (piece or ""), 0

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            self.move(_SPACE.match(self.text, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.fill()

    def move(self, end: int) -> None:
        """Go on at `end`."""
        self.line += self.text.count("\n", self.at, end)
        self.at = end


def _array(path: Path) -> Iterator[Parsed]:
    window, decoder = _Window(path), _Decoder()
    if window.peek() != "[":
        raise _Malformed("a JSON list of records is expected")
    window.move(window.at + 1)
    if window.peek() != "]":
        yield _next(window, decoder)
        while window.peek() == ",":
            window.move(window.at + 1)
            window.peek()
            yield _next(window, decoder)
    if window.peek() != "]":
        raise _Malformed(f"not valid JSON in line {window.line}: `,` or `]` is expected")
    window.move(window.at + 1)
    if window.peek():
        raise _Malformed(f"not valid JSON: text behind the list, in line {window.line}")


def _next(window: _Window, decoder: _Decoder) -> Parsed:
    """Decode the value in front, with as much more text as that takes."""
    wanted = CHUNK
    while True:
        try:
            value, end, faults = decoder.decode(window.text, window.at)
            if window.ended or window.text[end : end + 1] in _BEHIND:
                line = window.line
                window.move(end)
                return Parsed(value, line, faults)
        except RecursionError as error:
            raise _Malformed(f"nested too deep, in line {window.line}") from error
        except json.JSONDecodeError as error:
            if window.ended:
                line = window.line + error.doc.count("\n", window.at, error.pos)
                raise _Malformed(f"not valid JSON in line {line}: {error.msg}") from error
        except ValueError as error:
            raise _Malformed(f"a number too long, in line {window.line}") from error
        if len(window.text) - window.at > LONGEST_RECORD:
            raise _Malformed(
                f"not valid JSON, or a record of more than {LONGEST_RECORD} characters, "
                f"in line {window.line}"
            )
        wanted *= 2
        while len(window.text) - window.at < wanted and not window.ended:
            window.fill()


def _lines(path: Path) -> Iterator[Parsed]:
    decoder = _Decoder()
    for number, line in enumerate(_split(path), 1):
        text = line.strip(" \t\r")
        if not text:
            continue
        if len(line) > LONGEST_RECORD:
            yield Parsed(None, number, [f"a line of more than {LONGEST_RECORD} characters"])
            continue
        try:
            value, end, faults = decoder.decode(text, 0)
            behind = [] if end == len(text) else ["text behind the record"]
            yield Parsed(value, number, [*faults, *behind])
        except RecursionError:
            yield Parsed(None, number, ["nested too deep"])
        except ValueError as error:
            yield Parsed(None, number, [f"not valid JSON: {getattr(error, 'msg', error)}"])


def _split(path: Path) -> Iterator[str]:
    """Yield the lines; one that is too long is cut off behind the limit."""
    held = ""
    for piece in _decoded(path):
        first, *others = piece.split("\n")
        held += first[: LONGEST_RECORD + 1]
        for other in others:
            yield held
            held = other
        held = held[: LONGEST_RECORD + 1]
    yield held


def _decoded(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
