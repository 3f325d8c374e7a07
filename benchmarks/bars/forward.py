"""Bar 1: a forward pass against the products and attentions it cannot do without."""

from benchmarks.bench import Bench
from benchmarks.lines import Line
from benchmarks.roofline import Roofline


def measure(bench: Bench) -> list[Line]:
    """Time the engine's logits of one masked response and the bare operations."""
    subject = bench.s
    floor = Roofline.of(subject)
    found = bench.compare(
        {"forward": lambda _: subject.forward(), "floor": lambda _: floor.forward()}
    )
    value = found.ratio("forward", "floor")
    return [found.line("1 forward over roofline", value, 1.20, at_most=True)]
