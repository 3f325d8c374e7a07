"""Bar 5: a training step against a forward pass, the roofline and checkpoints with all logits."""

from benchmarks.bench import Bench, agreement
from benchmarks.lines import Line
from benchmarks.roofline import Roofline
from benchmarks.subject import Subject

SEED = 0


def measure(bench: Bench) -> list[Line]:
    """Time a step's loss and gradient, the projector's included."""
    subject, floor = bench.s, Roofline.of(bench.s)
    found = bench.compare(
        {
            "forward": lambda _: subject.forward(),
            "floor forward": lambda _: floor.forward(),
            "floor backward": lambda _: floor.backward(),
            "ours": lambda _: subject.gradient([0], SEED),
            "literal": lambda _: subject.literal_gradient(0, SEED),
        }
    )
    bare = found.least("floor forward") + found.least("floor backward")
    over_forward, over_floor = found.ratio("ours", "forward"), found.least("ours") / bare
    return [
        found.line(
            "5 step over forward",
            over_forward,
            2.25,
            at_most=True,
            limit=bare / found.least("forward"),
        ),
        found.line("5 step over roofline", over_floor, 1.2, at_most=True),
        found.line("5 literal over ours", found.ratio("literal", "ours"), 1.6, at_most=False),
        agreement("5 gradients", error(subject)),
    ]


def error(subject: Subject) -> float:
    """Relative error of the engine's gradient."""
    told = subject.literal_gradient(0, SEED)
    return float((subject.gradient([0], SEED) - told).norm() / told.norm())
