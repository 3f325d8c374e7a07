"""A part of a reader's campaign in a process of its own, which a reader may break.

`python -m tests.fuzz.shift READER SECONDS SEED CORPUS LAST` is that process; it answers in JSON.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from disp_engine.isolation import limit_time
from tests.fuzz.campaign import CORPUS, FAULT, HANG_S, Campaign, keep

KIBIBYTES_PER_MB = 1024


@dataclass(frozen=True)
class Outcome:
    """What a shift tried and found; `peak_mb` is of the whole process."""

    tried: int = 0
    accepted: int = 0
    reasons: Sequence[str] = ()
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    fault: bool = False


@dataclass(frozen=True)
class Shift:
    """So many seconds of processor time for one reader."""

    reader: str
    seconds: float
    seed: int
    folder: Path = CORPUS

    def run(self) -> Outcome:
        """Wait for the process; one that dies is a fault, and its last input is kept."""
        with tempfile.TemporaryDirectory() as folder:
            last = Path(folder) / "last"
            words = map(str, (self.reader, self.seconds, self.seed, self.folder, last))
            finished = subprocess.run(
                [sys.executable, "-m", "tests.fuzz.shift", *words],
                stdout=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            return outcome_of(finished, last, self.folder / self.reader)


def outcome_of(finished: "subprocess.CompletedProcess[bytes]", last: Path, folder: Path) -> Outcome:
    """What a process has answered, or that it has died of its last input."""
    if finished.returncode == 0:
        return Outcome(**json.loads(finished.stdout))
    if last.exists():
        keep(last.read_bytes(), folder, FAULT)
    print(f"a process ended with {finished.returncode}", file=sys.stderr)
    return Outcome(fault=True)


def main(reader: str, seconds: float, seed: int, folder: Path, last: Path) -> Outcome:
    """Fuzz; an endless loop outside Python ends the process."""
    limit_time(int(seconds) + 3 * HANG_S)
    campaign = Campaign(reader, folder, keeping=True, last=last)
    began, fault = time.process_time(), False
    try:
        campaign.run(seconds, seed)
    except Exception:
        fault = True
        traceback.print_exc()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Outcome(
        campaign.tried,
        campaign.accepted,
        sorted(campaign.reasons),
        time.process_time() - began,
        used.ru_maxrss / KIBIBYTES_PER_MB,
        fault,
    )


if __name__ == "__main__":
    name, length, number, corpus, place = sys.argv[1:]
    told = main(name, float(length), int(number), Path(corpus), Path(place))
    print(json.dumps(asdict(told)))
