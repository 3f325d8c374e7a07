"""Bar 3: exact purification against the official loop, at a small and at the true vocabulary."""

from benchmarks.bench import TRUE_VOCABULARY, Bench, same_ids
from benchmarks.lines import Line
from benchmarks.roofline import Roofline
from benchmarks.subject import LENGTH, Subject


def measure(bench: Bench) -> list[Line]:
    """All steps on toy S, two at the true vocabulary."""
    wide = bench.of_vocabulary(TRUE_VOCABULARY)
    return [
        *_of(bench, bench.s, "3 generation", LENGTH, 1.25),
        *_of(bench, wide, "3 generation at the true vocabulary", 2, 10.0),
    ]


def _of(bench: Bench, subject: Subject, bar: str, steps: int, target: float) -> list[Line]:
    quota = LENGTH // steps
    floor = Roofline.of(subject, rows=(LENGTH + quota) // 2)  # open in a step, on average
    found = bench.compare(
        {
            "literal": lambda _: [subject.generate(0, steps)],
            "ours": lambda _: subject.denoise([0], steps),
            "bare": lambda _: [floor.forward() for _ in range(steps)],
        }
    )
    told, given = (found.found[name].results[0] for name in ("literal", "ours"))
    value = found.ratio("literal", "ours")
    return [
        found.line(
            bar, value, target, at_most=False, limit=found.ratio("literal", "bare"), steps=steps
        ),
        same_ids(f"{bar}: ids", told, given),
    ]
