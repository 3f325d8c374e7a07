"""Bar 7: what one more entry of the vocabulary costs a training step at its peak."""

from benchmarks.bench import Bench
from benchmarks.lines import Line
from benchmarks.memory import in_child

SMALL, LARGE = 32_768, 65_536
MOST = 0.2 * 1024
"""Bytes; 32 rows of float32, once, are 128."""


def measure(bench: Bench) -> list[Line]:
    """The slope between two vocabularies at n = 512 and 32 masked tokens."""
    small, large = (
        in_child("step", f"--vocabulary={size}", "--pictures=2", "--text=88")
        for size in (SMALL, LARGE)
    )
    return [line(small, large)]


def line(small: int, large: int) -> Line:
    """Judge two peaks."""
    slope = (large - small) / (LARGE - SMALL)
    detail = {"peak_bytes": {str(SMALL): small, str(LARGE): large}, "unit": "bytes per entry"}
    return Line("7 peak memory over vocabulary", round(slope, 1), MOST, slope <= MOST, detail)
