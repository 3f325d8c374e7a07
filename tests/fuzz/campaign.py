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
FAULT = "fault-"
"""What the name of a kept input that found a fault begins with."""
HANG_S = 20
"""Of processor time, for one input."""
ROUND = 500
_PARTICULARS = re.compile(r"(?<!\w)b?'(?:[^'\\]|\\.)*'|b?\"[^\"]*\"|0x[0-9a-f]+|[0-9]+")
_LIST = re.compile(r"\*(?:, \*)+")


class Hang(Exception):
    """A reader that has not come to an end."""


@dataclass
class Campaign:
    """One reader, its seeds and what is kept of earlier runs.

    `last` is a file that holds the present input, for whoever survives a reader that kills its
    process.
    """

    name: str
    folder: Path = CORPUS
    tried: int = 0
    accepted: int = 0
    reasons: set[str] = field(default_factory=set)
    keeping: bool = False
    last: Path | None = None

    def __post_init__(self) -> None:
        self.reader = READERS[self.name]
        paths = sorted((self.folder / self.name).glob("*"))
        self.seeds = [*self.reader.seeds(), *(path.read_bytes() for path in paths)]

    def run(self, seconds: float, first: int) -> None:
        """Try the seeds, then mutations of them for so much processor time; raises on a fault."""
        end = time.process_time() + seconds
        for content in list(self.seeds):
            self.attempt(content)
        numbers = Random(first)
        while time.process_time() < end:
            self._round(numbers.getrandbits(32), end)

    def attempt(self, content: bytes) -> str | None:
        """Put one input to the reader; returns why it was refused."""
        self.tried += 1
        if self.last is not None:
            self.last.write_bytes(content)
        try:
            with _patience(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.reader.check(content)
            self.accepted += 1
            return None
        except EngineError as error:
            reason = f"{type(error).__name__}: {general(str(error))}"
            self._learn(content, reason)
            return reason

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
            if time.process_time() < end:
                self._try(content)

        try_one()

    def _try(self, content: bytes) -> None:
        try:
            self.attempt(content)
        except Exception:
            if self.keeping:
                # Shrinking goes on; the last one kept is the smallest.
                keep(content, self.folder / self.name, FAULT)
            raise

    def _learn(self, content: bytes, reason: str) -> None:
        if reason in self.reasons or len(content) > LARGEST_KEPT:
            return
        self.reasons.add(reason)
        if content not in self.seeds:
            self.seeds.append(content)
            if self.keeping:
                keep(content, self.folder / self.name)


def general(reason: str) -> str:
    """A reason of refusal without its numbers and names."""
    return _LIST.sub("*", _PARTICULARS.sub("*", reason))


def keep(content: bytes, folder: Path, prefix: str = "") -> None:
    """Put an input where later runs find it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}{sha256(content).hexdigest()[:16]}").write_bytes(content)


def prune(name: str, folder: Path = CORPUS) -> int:
    """Of a reader's kept inputs leave one for each reason, the smallest, and what found a fault.

    Returns how many are left.
    """
    campaign, kept = Campaign(name, folder), folder / name
    known = {campaign.attempt(content) for content in campaign.reader.seeds()}
    for path in sorted(kept.glob("*"), key=lambda path: (path.stat().st_size, path.name)):
        reason = campaign.attempt(path.read_bytes())
        if reason in known and not path.name.startswith(FAULT):
            path.unlink()
        known.add(reason)
    return len(list(kept.glob("*")))


@contextmanager
def _patience() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang(f"not done after {HANG_S} s of processor time")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
