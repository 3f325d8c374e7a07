"""Bar 2: a sample's scores against a forward pass, the roofline and Algorithm 1."""

from benchmarks.bench import Bench, Comparison, agreement
from benchmarks.lines import Line
from benchmarks.roofline import Roofline
from benchmarks.subject import PROBES, Subject

MARGINAL = 1.25
"""Forward passes that one more probe may cost."""
OVER_FLOOR, OVER_LITERAL, OVER_LITERAL_WIDE, WIDE = 1.2, 2.3, 4.5, 32_768


def measure(bench: Bench) -> list[Line]:
    """Time the engine with m probes and with one, the literal form and the bare operations."""
    subject, floor = bench.s, Roofline.of(bench.s)
    found = bench.compare(
        {
            "forward": lambda _: subject.forward(),
            "floor forward": lambda _: floor.forward(),
            "floor backward": lambda _: floor.backward(),
            "ours": lambda _: subject.scores([0]),
            "ours, one probe": lambda _: subject.scores([0], probes=1),
            "literal": lambda _: literal(subject),
        }
    )
    passes = 1 + MARGINAL * PROBES
    bare = found.least("floor forward") + PROBES * found.least("floor backward")
    over_floor = found.least("ours") / bare
    marginal = (found.least("ours") - found.least("ours, one probe")) / (PROBES - 1)
    forward, over_forward = found.least("forward"), found.ratio("ours", "forward")
    return [
        found.line(
            "2 saliency over forward",
            over_forward,
            passes,
            at_most=True,
            limit=bare / forward,
            probes=PROBES,
        ),
        found.line("2 saliency over roofline", over_floor, OVER_FLOOR, at_most=True),
        found.line(
            "2 marginal probe",
            marginal / forward,
            MARGINAL,
            at_most=True,
            limit=found.ratio("floor backward", "forward"),
        ),
        _against_literal("2 literal over ours", found, OVER_LITERAL),
        wide(bench),
        agreement("2 scores", error(subject)),
    ]


def wide(bench: Bench) -> Line:
    """Against the literal form where the vocabulary is large beside the width."""
    subject = bench.of_vocabulary(WIDE)
    found = bench.compare(
        {"ours": lambda _: subject.scores([0]), "literal": lambda _: literal(subject)}
    )
    return _against_literal(f"2 literal over ours, V = {WIDE}", found, OVER_LITERAL_WIDE)


def literal(subject: Subject) -> object:
    """Algorithm 1 by code that freezes no weight."""
    with subject.pair.reference.unfrozen():
        return subject.literal_scores(0)


def error(subject: Subject) -> float:
    """Relative error of the engine's scores with the literal form's probes."""
    [ours] = subject.scores([0], estimator="gaussian")
    told = subject.literal_scores(0)
    return float((ours.scores - told).norm() / told.norm())


def _against_literal(bar: str, found: Comparison, target: float) -> Line:
    return found.line(bar, found.ratio("literal", "ours"), target, at_most=False)
