"""Bar 4: LaViDa's prefix mode, whose prompt can be kept, against exact generation."""

from benchmarks.bench import Bench, same_ids
from benchmarks.lines import Line
from benchmarks.modes import in_prefix_mode
from benchmarks.subject import LENGTH


def measure(bench: Bench) -> list[Line]:
    """Full mode and prefix mode in turn; ids against a recomputation under the same mask."""
    subject = bench.s_lavida
    model = subject.pair.model

    def prefix(_: int) -> list[object]:
        with in_prefix_mode(model):
            return list(subject.denoise([0], LENGTH))

    found = bench.compare({"exact": lambda _: subject.denoise([0], LENGTH), "prefix": prefix})
    told = [subject.generate(0, LENGTH, prefix=True)]
    value = found.ratio("exact", "prefix")
    return [
        found.line("4 exact over prefix mode", value, 6.0, at_most=False),
        same_ids("4 prefix mode: ids", told, found.found["prefix"].results[0]),
    ]
