"""Bar 8: the peak of a training step grows with n, and by little more than has to be kept."""

from benchmarks.bench import Bench
from benchmarks.lines import Line
from benchmarks.memory import INNER, LAYERS, WIDTH, in_child

SHORT, LONG = 512, 2048
KEPT = LAYERS * 4 * (6 * WIDTH + 2 * INNER)
"""Bytes a position has to keep in float32: of each layer the inputs of both norms, the query, key,
value and mixture of attention, and two inner rows of the MLP."""
GROWTH, SLOPE = 4.1, 1.5


def measure(bench: Bench) -> list[Line]:
    """Peaks at n and at 4n."""
    short, long = (
        in_child("step", "--vocabulary=1536", f"--pictures={pictures}", f"--text={text}")
        for pictures, text in ((2, 88), (10, 56))
    )
    return lines(short, long)


def lines(short: int, long: int) -> list[Line]:
    """Judge two peaks."""
    growth, slope = long / short, (long - short) / (LONG - SHORT) / KEPT
    detail = {"peak_bytes": {str(SHORT): short, str(LONG): long}, "kept_bytes": KEPT}
    return [
        Line("8 peak memory at 4n over n", round(growth, 3), GROWTH, growth <= GROWTH, detail),
        Line("8 peak memory over what is kept", round(slope, 3), SLOPE, slope <= SLOPE, detail),
    ]
