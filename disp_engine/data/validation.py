"""Judges records one by one: what a sample must be, and what `strict` validation adds to that.

In `quarantine` a record with a fault is listed and the others stay. Three things are no reason to
lose a sample and are faults under `strict` only: an id that was there before (it gets a number;
LLaVA's own published data repeat theirs), a member that no record names, and a picture whose name
ends like another format's.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from disp_engine.data.darkroom import darkroom
from disp_engine.data.documents import Parsed
from disp_engine.data.names import INVISIBLE
from disp_engine.data.pictures import EXTENSIONS, MAX_BYTES, check_picture
from disp_engine.errors import (
    MAX_FAULTS,
    DataRefused,
    Fault,
    InvalidDatasetError,
    Judgement,
    PictureError,
    SampleError,
)
from disp_engine.samples import IMAGE_MARK, Sample, Turn

Validation = Literal["strict", "quarantine"]
MAX_REFUSED = 100_000
MAX_COUNTED = 10_000
"""Faults after which strict validation reads no further."""
LONGEST_ID = 512
LONGEST_TURN = 65_536
"""Characters."""
MAX_TURNS = 1024


class RecordReader:
    """Takes records in their order; `samples` and `refused` are what became of them."""

    def __init__(self, name: str, hashes: Mapping[str, str], pool: Path, *, strict: bool) -> None:
        self.samples: list[Sample] = []
        self.refused: dict[str, str] = {}
        self._name, self._hashes, self._pool = name, hashes, pool
        self._folder = PurePosixPath(name).parent
        self._strict = strict
        self._seen: set[str] = set()
        self._used: set[str] = set()
        self._pictures: dict[str, str | PictureError] = {}
        self._faults: list[Fault] = []
        self._count = self._fault_count = self._repeated = 0

    @property
    def judgement(self) -> Judgement:
        """What was found so far."""
        counts = (self._count, len(self.samples), self._repeated, self._fault_count)
        return Judgement(*counts, tuple(self._faults))

    def take(self, parsed: Parsed) -> None:
        """Judge the next record."""
        name, where = self._identify(parsed)
        self._count += 1
        self._used.update(self._mentioned(parsed.value))
        try:
            if parsed.faults:
                raise SampleError(parsed.faults[0])
            self.samples.append(self._sample(name, parsed.value, where))
        except SampleError as error:
            self.refused[name] = str(error)
            self._blame(where, error.code, str(error))
            if len(self.refused) > MAX_REFUSED:
                raise InvalidDatasetError(
                    f"{self._name}: more than {MAX_REFUSED} records cannot be used; {self._first()}"
                ) from error

    def finish(self) -> None:
        """Refuse a dataset of which nothing is left, or that has a fault where none may be."""
        if self._strict:
            for unused in sorted(set(self._hashes) - self._used):
                self._blame(repr(unused), InvalidDatasetError.code, "no record names this member")
            if self._fault_count:
                raise DataRefused(self._name, tuple(self._faults), self._fault_count)
        if not self.samples:
            raise InvalidDatasetError(f"{self._name}: no record can be used; {self._first()}")

    def _blame(self, where: str, code: str, reason: str) -> None:
        self._fault_count += 1
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(Fault(where, code, reason))
        if self._strict and self._fault_count >= MAX_COUNTED:
            raise DataRefused(self._name, tuple(self._faults), self._fault_count)

    def _identify(self, parsed: Parsed) -> tuple[str, str]:
        """The name the record goes by, and where it stands."""
        given = parsed.value.get("id") if isinstance(parsed.value, dict) else None
        number = self._count
        name = str(given) if _is_name(given) else f"record {number}"
        where = f"{self._name}, line {parsed.line}, record {number}"
        self._repeated += name in self._seen
        if name in self._seen and self._strict:
            self._blame(where, InvalidDatasetError.code, f"the id {name!r} is there twice")
        while name in self._seen:
            name = f"{name} (record {number})"
        self._seen.add(name)
        return name, where

    def _sample(self, name: str, record: Any, where: str) -> Sample:
        if not isinstance(record, dict):
            raise SampleError("a record must be a JSON object")
        if record.get("id") is not None and not _is_name(record["id"]):
            raise SampleError(f"`id` must be a text of at most {LONGEST_ID} plain characters")
        images = read_images(record)
        turns = read_turns(record.get("conversations"))
        marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
        if marks != len(images):
            raise SampleError(f"{marks} {IMAGE_MARK} marks for {len(images)} pictures")
        found = tuple(self._picture(image, where) for image in images)
        return Sample(name, found, turns, record)

    def _picture(self, name: str, where: str) -> str:
        """The sha256 of the picture that a record names, whose structure is sound."""
        member = self._find(name)
        sha256 = self._hashes[member]
        if sha256 not in self._pictures:
            try:
                self._pictures[sha256] = self._judge(_head(self._pool / sha256))
            except PictureError as error:
                self._pictures[sha256] = error
        judged = self._pictures[sha256]
        if isinstance(judged, PictureError):
            raise type(judged)(f"picture {member!r}: {judged}")
        told = EXTENSIONS.get(PurePosixPath(member).suffix.lower(), judged)
        if self._strict and told != judged:
            self._blame(where, "image_format", f"picture {member!r} is in truth a {judged}")
        return sha256

    def _judge(self, content: bytes) -> str:
        """The format of a picture; where no fault may be, it is decoded once, too."""
        form = check_picture(content)
        if self._strict:
            darkroom().develop(content)
        return form

    def _find(self, name: str) -> str:
        for candidate in (name, str(self._folder / name), str(self._folder / "images" / name)):
            if candidate in self._hashes:
                return candidate
        raise SampleError(f"picture {name[:200]!r} is not in the archive")

    def _mentioned(self, record: Any) -> Iterator[str]:
        """The members that a record names, be it sound or not."""
        with suppress(SampleError):
            for name in read_images(record) if isinstance(record, dict) else ():
                yield self._find(name)

    def _first(self) -> str:
        first = next((f"{name}: {why}" for name, why in self.refused.items()), None)
        return f"the first: {first}" if first else "the list is empty."


def _is_name(given: Any) -> bool:
    short = isinstance(given, (str, int)) and len(str(given)) <= LONGEST_ID
    return short and not INVISIBLE.search(str(given))


def _head(path: Path) -> bytes:
    """As much of a file as tells whether it is too long for a picture."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def read_images(record: Mapping[str, Any]) -> list[str]:
    """Return the names of a record's pictures."""
    listed = record.get("image") or record.get("images") or []
    images = [listed] if isinstance(listed, str) else listed
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise SampleError("`image` must be a member name or a list of them")
    return images


def read_turns(conversations: Any) -> tuple[Turn, ...]:
    """Return a conversation's turns, or say what is wrong with them."""
    if not isinstance(conversations, list) or not conversations:
        raise SampleError("`conversations` must be a list of turns")
    if len(conversations) > MAX_TURNS:
        raise SampleError(f"more than {MAX_TURNS} turns")
    turns = [_turn(number, turn) for number, turn in enumerate(conversations)]
    if len(turns) % 2:
        raise SampleError("the last question has no answer")
    if any(IMAGE_MARK in turn.text for turn in turns[1::2]):
        raise SampleError(f"an answer contains {IMAGE_MARK}")
    return tuple(turns)


def _turn(number: int, turn: Any) -> Turn:
    role: Literal["human", "gpt"] = "gpt" if number % 2 else "human"
    if not isinstance(turn, dict) or turn.get("from") != role:
        raise SampleError(f"turn {number} must be from {role!r}")
    text = turn.get("value")
    if not isinstance(text, str):
        raise SampleError(f"turn {number} has no text `value`")
    if not text.strip():
        raise SampleError(f"turn {number} is empty")
    if len(text) > LONGEST_TURN:
        raise SampleError(f"turn {number} has more than {LONGEST_TURN} characters")
    if found := INVISIBLE.search(text):
        raise SampleError(f"turn {number} has the invisible character U+{ord(found[0]):04X}")
    return Turn(role, text)
