"""Fuzzes a reader for a while, and keeps what taught it something.

An input is kept that is refused for a reason not met before (numbers and names aside), for it lies
on the far side of a check; and one that finds a fault, for ever.
"""

import re
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, Phase, given, seed, settings

from disp_engine.errors import EngineError
from tests.fuzz.mutation import mutated
from tests.fuzz.readers import READERS

CORPUS = Path(__file__).parent / "corpus"
LARGEST_KEPT = 1 << 12
HANG_S = 20
ROUND = 500
_PARTICULARS = re.compile(r"b?'(?:[^'\\]|\\.)*'|b?\"[^\"]*\"|0x[0-9a-f]+|[0-9]+")


class Hang(Exception):
    """A reader that has not come to an end."""


@dataclass
class Campaign:
    """One reader, its seeds and what is kept of earlier runs."""

    name: str
    folder: Path = CORPUS
    tried: int = 0
    accepted: int = 0
    reasons: set[str] = field(default_factory=set)
    keeping: bool = False

    def __post_init__(self) -> None:
        self.reader = READERS[self.name]
        paths = sorted((self.folder / self.name).glob("*"))
        self.seeds = [*self.reader.seeds(), *(path.read_bytes() for path in paths)]

    def run(self, seconds: float, first: int) -> None:
        """Try the seeds, then mutations of them until the time is over; raises on a fault."""
        end = time.monotonic() + seconds
        for content in list(self.seeds):
            self.attempt(content)
        numbers = Random(first)
        while time.monotonic() < end:
            self._round(numbers.getrandbits(32), end)

    def attempt(self, content: bytes) -> None:
        """Put one input to the reader."""
        self.tried += 1
        try:
            with _patience(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.reader.check(content)
            self.accepted += 1
        except EngineError as error:
            self._learn(content, f"{type(error).__name__}: {_PARTICULARS.sub('*', str(error))}")

    def _round(self, number: int, end: float) -> None:
        @seed(number)
        @settings(
            max_examples=ROUND,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(mutated(tuple(self.seeds), self.reader.repair))
        def try_one(content: bytes) -> None:
            if time.monotonic() < end:
                self._try(content)

        try_one()

    def _try(self, content: bytes) -> None:
        try:
            self.attempt(content)
        except Exception:
            if self.keeping:
                self._keep(content)  # shrinking goes on; the last one kept is the smallest
            raise

    def _learn(self, content: bytes, reason: str) -> None:
        if reason in self.reasons or len(content) > LARGEST_KEPT:
            return
        self.reasons.add(reason)
        if content not in self.seeds:
            self.seeds.append(content)
            if self.keeping:
                self._keep(content)

    def _keep(self, content: bytes) -> None:
        folder = self.folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / sha256(content).hexdigest()[:16]).write_bytes(content)


@contextmanager
def _patience() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang(f"not done after {HANG_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
