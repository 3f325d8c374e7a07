"""Fuzzes one reader, or all: `python -m tests.fuzz --reader NAME --minutes N`.

What is worth it is kept in `tests/fuzz/corpus`, which the tests and later runs begin with.
"""

import argparse
import sys
import time
import traceback
from random import SystemRandom

from tests.fuzz.campaign import Campaign
from tests.fuzz.readers import READERS


def main() -> int:
    """Return 1 if a reader has a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--reader", choices=[*READERS, "all"], default="all")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=None, help="the same run again")
    options = parser.parse_args()
    names = list(READERS) if options.reader == "all" else [options.reader]
    return max([_fuzz(name, options.minutes, options.seed) for name in names])


def _fuzz(name: str, minutes: float, given: int | None) -> int:
    seed = SystemRandom().getrandbits(32) if given is None else given
    campaign, began, failed = Campaign(name, keeping=True), time.process_time(), False
    try:
        campaign.run(60 * minutes, seed)
    except Exception:
        failed = True
        traceback.print_exc()
    print(
        f"{name}: {campaign.tried} inputs, {campaign.accepted} accepted, {len(campaign.reasons)} "
        f"reasons of refusal, {time.process_time() - began:.0f} CPU seconds, seed {seed}: "
        f"{'A FAULT' if failed else 'no fault'}",
        flush=True,
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
