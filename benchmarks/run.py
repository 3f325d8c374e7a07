"""The CPU's bars: `python -m benchmarks.run [--only NAME] --json FILE`.

One line is printed for each bar, and FILE holds them as `[{bar, value, target, holds, detail}]`.
Status 1 where one does not hold. Bars 10 to 14 need processes and hours of their own:
`benchmarks.service`, `.latency`, `.upload`, `.shards`, and the chaos runs of tests/e2e.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.bench import Bench
from benchmarks.lines import Line, Report

BARS: Mapping[str, str] = {
    "forward": "benchmarks.bars.forward",
    "saliency": "benchmarks.bars.saliency",
    "generation": "benchmarks.bars.generation",
    "prefix_cache": "benchmarks.bars.prefix_cache",
    "tuning": "benchmarks.bars.tuning",
    "vision_cache": "benchmarks.bars.vision_cache",
    "memory_of_vocabulary": "benchmarks.bars.memory_of_vocabulary",
    "memory_of_positions": "benchmarks.bars.memory_of_positions",
    "memory_of_samples": "benchmarks.bars.memory_of_samples",
}


def run(names: Sequence[str], bench: Bench, report: Report) -> bool:
    """Measure the named bars; whether all hold."""
    for name in names:
        report.attempt_all(name, lambda name=name: _lines(name, bench))
    return all(line.holds for line in report.lines)


def _lines(name: str, bench: Bench) -> list[Line]:
    lines: list[Line] = importlib.import_module(BARS[name]).measure(bench)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", choices=BARS, action="append", metavar="NAME")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison [5]")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kept = run(given.only or list(BARS), Bench(given.rounds), Report(given.json))
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
