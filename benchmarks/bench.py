"""How the CPU's bars are measured: one thread, in turn, and again where the machine has drifted.

Seconds are those the process was given, not those of the wall, so that others on the cores change
them little; the quickest round counts.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from benchmarks.lines import Line
from benchmarks.shapes import Pair, Shape, toy
from benchmarks.subject import Sizes, Subject
from benchmarks.timing import Arm, Ceilings, Timing, interleaved
from disp_engine.models.lavida import Lavida
from disp_engine.models.lavida.config import LavidaConfig
from disp_engine.models.llada_v import LladaV
from disp_engine.models.llada_v.config import LladaVConfig
from disp_engine.registry import BUILTIN

CPU = torch.device("cpu")
TOKENIZER = BUILTIN / "disp-tiny-llada-v"
DRIFT, REPEATS, CLOSE = 0.10, 3, 1e-5
TRUE_VOCABULARY = 126_464
QUESTION = Sizes(pictures=2, side=196, text=24, answer=32)
"""Of toy S: with its 392 visual tokens and 32 of a response, n is 448."""


@dataclass(frozen=True)
class Bench:
    """Rounds of each comparison, and the toys."""

    rounds: int = 5

    def subject(self, shape: Shape, sizes: Sizes = QUESTION) -> Subject:
        """Two samples for a toy with drawn weights."""
        pair: Pair = shape.build(TOKENIZER, CPU, torch.float32)
        return Subject.of(pair, 2, sizes)

    @cached_property
    def s(self) -> Subject:
        """Toy S, as LLaDA-V."""
        return self.subject(toy(LladaV, LladaVConfig))

    @cached_property
    def s_lavida(self) -> Subject:
        """Toy S, as LaViDa."""
        return self.subject(toy(Lavida, LavidaConfig))

    def of_vocabulary(self, size: int) -> Subject:
        """Toy S with another vocabulary."""
        return self.subject(toy(LladaV, LladaVConfig, vocabulary=size))

    def compare(self, arms: Mapping[str, Callable[[int], object]]) -> "Comparison":
        """Time the arms in turn; once more, and up to three times, where a product's time drifts.

        Of the attempts the one with the least drift counts.
        """
        attempts: list[Comparison] = []
        for _ in range(REPEATS):
            before = _reference()
            named = {name: Arm(act) for name, act in arms.items()}
            found = interleaved(named, CPU, self.rounds, clock=time.process_time)
            attempts.append(Comparison(found, abs(_reference() / before - 1)))
            if attempts[-1].drift <= DRIFT:
                break
        return min(attempts, key=lambda attempt: attempt.drift)


@dataclass(frozen=True)
class Comparison:
    """Times of the arms, and how far the reference product's moved meanwhile."""

    found: Mapping[str, Timing]
    drift: float

    def least(self, name: str) -> float:
        """Seconds of an arm's quickest round."""
        return self.found[name].least

    def ratio(self, one: str, other: str) -> float:
        """How many times longer the one takes than the other."""
        return self.least(one) / self.least(other)

    def line(
        self,
        bar: str,
        value: float,
        target: float,
        *,
        at_most: bool,
        limit: float | None = None,
        **detail: object,
    ) -> Line:
        """A line with all times in milliseconds; `limit`: the value of bare operations alone."""
        times = {name: round(timing.least * 1e3, 2) for name, timing in self.found.items()}
        told = {"ms": times, "drift": round(self.drift, 3), **detail}
        if limit is not None:
            told["limit"] = round(limit, 4)
        holds = value <= target if at_most else value >= target
        return Line(bar, round(value, 4), target, holds, told)


def agreement(bar: str, error: float) -> Line:
    """A line for outputs that have to be those of the reference."""
    return Line(bar, error, CLOSE, error <= CLOSE)


def same_ids(bar: str, told: Sequence[torch.Tensor], given: Sequence[torch.Tensor]) -> Line:
    """A line for token ids, all of which have to be those of the reference."""
    share = float((torch.cat(list(told)) == torch.cat(list(given))).double().mean())
    return Line(bar, share, 1.0, share == 1.0)


def _reference() -> float:
    """Operations a second of one product."""
    return Ceilings.of(
        CPU, torch.float32, width=256, repeats=4, rounds=5, clock=time.process_time
    ).flops
