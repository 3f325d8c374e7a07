"""Fuzzes readers side by side: `python -m tests.fuzz [--reader NAME ...] --minutes N`.

What is worth it is kept in `tests/fuzz/corpus`, which the tests and later runs begin with; at the
end of a reader's time that is pruned to one input for each reason of refusal.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import SystemRandom

from tests.fuzz.campaign import prune
from tests.fuzz.readers import READERS
from tests.fuzz.shift import Outcome, Shift

LONGEST_SHIFT_S = 300.0
"""After that another process goes on, with what all have kept."""


def main() -> int:
    """Return 1 if a reader has a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--reader", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--minutes", type=float, default=1.0, help="of a processor, for each")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=None, help="the same run again")
    options = parser.parse_args()
    seed = SystemRandom().getrandbits(32) if options.seed is None else options.seed
    with ThreadPoolExecutor(options.processes) as pool:
        running = {
            name: [pool.submit(shift.run) for shift in shifts(name, options.minutes, seed)]
            for name in options.reader
        }
        found = [
            _sum_up(name, [one.result() for one in ones], seed) for name, ones in running.items()
        ]
    return int(any(found))


def shifts(name: str, minutes: float, seed: int) -> list[Shift]:
    """A reader's time in parts of equal length."""
    count = max(1, math.ceil(60 * minutes / LONGEST_SHIFT_S))
    return [Shift(name, 60 * minutes / count, seed + number) for number in range(count)]


def _sum_up(name: str, outcomes: Sequence[Outcome], seed: int) -> bool:
    """Print a reader's line; returns whether it has a fault."""
    fault = any(one.fault for one in outcomes)
    kept = "" if fault else f", {prune(name)} kept"
    print(
        f"{name}: {sum(one.tried for one in outcomes)} inputs, "
        f"{sum(one.accepted for one in outcomes)} accepted, "
        f"{len(set().union(*(one.reasons for one in outcomes)))} reasons of refusal{kept}, "
        f"{sum(one.cpu_s for one in outcomes):.0f} CPU seconds, "
        f"{max(one.peak_mb for one in outcomes):.0f} MB at most, "
        f"seeds {seed} to {seed + len(outcomes) - 1}: {'A FAULT' if fault else 'no fault'}",
        flush=True,
    )
    return fault


if __name__ == "__main__":
    sys.exit(main())
