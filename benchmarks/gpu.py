"""The literal loops and the engine in turn at the true sizes, on one GPU and random weights.

`python -m benchmarks.gpu --json FILE` builds LLaDA-V and then LaViDa on the device in bfloat16,
measures what a product and a copy reach, then `benchmarks.reference` and the engine on the same
inputs, A B A B, and the ceilings again. Speed does not depend on the weights; no response ends
early. One line for each bar is printed and FILE is rewritten after each, so that a run that is cut
off keeps what it has; `--budget` leaves out what no longer fits. The text is drawn; of a
tokenizer.json only the families' special tokens are used. A first part compares the outputs in
float32 at the true widths and two layers, where both must agree.

Not in any time: pictures and prompts, which both sides take from the engine ready-made, except the
projector, which is trained and therefore part of each training step, on both sides.
"""

import argparse
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor

from benchmarks.lines import Line, Report
from benchmarks.modes import in_prefix_mode
from benchmarks.shapes import SHAPES
from benchmarks.subject import LENGTH, PAPER, PROBES, Subject
from benchmarks.timing import Arm, Ceilings, Timing, interleaved
from disp_engine.models.llava.config import LlavaConfig
from disp_engine.registry import BUILTIN
from disp_engine.saliency.masking import most_salient

SAMPLES, EPOCHS, RETRAINED, EVALUATED = 1000, 20, 2, 800
"""The paper's job: 400 pictures are evaluated before and after."""
DRIFT, CLOSE = 0.05, 1e-5
PROMPTS = 8


@dataclass(frozen=True)
class Costs:
    """Seconds a sample takes in each stage, the literal way and ours."""

    literal: float
    ours: float

    @property
    def ratio(self) -> float:
        """How many times longer the literal way takes."""
        return self.literal / self.ours


class Bench:
    """One family on the device, its bars, and what they found for the job as a whole."""

    def __init__(self, subject: Subject, report: Report, ceilings: Ceilings, rounds: int) -> None:
        self.subject, self.report, self.ceilings = subject, report, ceilings
        self.rounds = rounds
        self.costs: dict[str, Costs] = {}

    def generation(self, bar: str, steps: int, target: float | None) -> Line:
        """The official loop against exact purification; ids are compared sample by sample."""
        subject, everyone = self.subject, range(PROMPTS)
        found = self._compare(
            {
                "literal": Arm(lambda number: [subject.generate(number % PROMPTS, steps)]),
                "ours": Arm(lambda number: subject.denoise([number % PROMPTS], steps)),
                "ours in batch": Arm(lambda _: subject.denoise(everyone, steps), PROMPTS),
            }
        )
        costs = self._costs("generation", found)
        told = [ids for (ids,) in found["literal"].results]
        alone = [ids for (ids,) in found["ours"].results]
        together = [
            result[number % PROMPTS] for number, result in enumerate(found["ours in batch"].results)
        ]
        detail = {name: timing.to_json() for name, timing in found.items()} | {
            "steps": steps,
            "positions": subject.positions,
            "ids_equal_alone": equal_share(told, alone),
            "ids_equal_in_batch": equal_share(told, together),
            "ids_equal_in_one_step": self._ids_of_one_step(),
            "different_ids_said": len(set(torch.cat(told).tolist())),
            "floor_ms": self._floor_ms(steps * forward_flops(subject, LENGTH)),
        }
        holds = target is None or costs.ratio >= target
        return Line(bar, round(costs.ratio, 3), target, holds, detail)

    def prefix(
        self, bar: str, steps: int, target: float, *, samples: int, most_s: float | None = None
    ) -> Line:
        """The official loop against the prefix mode, whose prompt is read once for all steps.

        The ratio is that of `samples` at once, 1 or 16. Answers may differ from the full mode's.
        """
        subject, model = self.subject, self.subject.pair.model
        sixteen = [number % PROMPTS for number in range(16)]
        with in_prefix_mode(model):
            found = self._compare(
                {
                    "literal": Arm(lambda number: subject.generate(number % PROMPTS, steps)),
                    "prefix x1": Arm(lambda number: subject.denoise([number % PROMPTS], steps)),
                    "prefix x16": Arm(lambda _: subject.denoise(sixteen, steps), 16),
                }
            )
        literal, asked = found["literal"].median, found[f"prefix x{samples}"].median
        self.costs["prefix"] = Costs(literal, found["prefix x16"].median)
        gain = found["prefix x1"].median / found["prefix x16"].median
        detail = {name: timing.to_json() for name, timing in found.items()} | {
            "ratio_of_samples": samples,
            "most_seconds": most_s,
            "x1_over_x16": round(gain, 3),
            "least_x1_over_x16": 2.0,
        }
        holds = literal / asked >= target and gain >= 2 and asked <= (most_s or asked)
        return Line(bar, round(literal / asked, 3), target, holds, detail)

    def saliency(self, bar: str, target: float | None, most_s: float | None) -> Line:
        """Algorithm 1, with and without the weights' gradients, against one shared forward."""
        subject = self.subject
        many = largest(lambda count: subject.scores(range(count)), (4, 2, 1))

        def unfrozen(number: int) -> Tensor:
            with subject.pair.reference.unfrozen():
                return subject.literal_scores(number % PROMPTS)

        found = self._compare(
            {
                "literal": Arm(unfrozen),
                "literal, weights frozen": Arm(lambda n: subject.literal_scores(n % PROMPTS)),
                "ours": Arm(lambda number: subject.scores([number % PROMPTS])),
                "ours in batch": Arm(lambda _: subject.scores(range(many)), many),
            }
        )
        costs = self._costs("saliency", found)
        same = subject.scores([0], estimator="gaussian")[0].scores
        told = found["literal"].results[0]
        detail = {name: timing.to_json() for name, timing in found.items()} | {
            "probes": PROBES,
            "over_frozen_literal": round(found["literal, weights frozen"].median / costs.ours, 3),
            "scores_relative_error": relative_error(same, told),
            "masks_iou": masks_iou(same, told),
            "seconds": round(costs.ours, 4),
            "most_seconds": None if most_s is None else round(most_s, 3),
            "floor_ms": self._floor_ms(
                forward_flops(subject, LENGTH) + PROBES * backward_flops(subject, LENGTH)
            ),
        }
        holds = target is None or (costs.ratio >= target and costs.ours <= (most_s or costs.ours))
        return Line(bar, round(costs.ratio, 3), target, holds, detail)

    def tuning(self, bar: str, target: float, most_s: float) -> Line:
        """A checkpointed step over all rows' logits against ours, both with the projector."""
        subject = self.subject
        many = largest(lambda count: subject.gradient(range(count), seed=0), (4, 2, 1))
        found = self._compare(
            {
                "literal": Arm(lambda n: subject.literal_gradient(n % PROMPTS, seed_of(n))),
                "ours": Arm(lambda n: subject.gradient([n % PROMPTS], seed_of(n))),
                "ours in batch": Arm(lambda n: subject.gradient(range(many), seed_of(n)), many),
            }
        )
        costs = self._costs("tuning", found)
        pairs = zip(found["ours"].results, found["literal"].results, strict=True)
        rows = PAPER.answer // 2  # masked on average
        detail = {name: timing.to_json() for name, timing in found.items()} | {
            "gradient_relative_error": max(relative_error(a, b) for a, b in pairs),
            "seconds": round(costs.ours, 4),
            "most_seconds": most_s,
            "floor_ms": self._floor_ms(
                forward_flops(subject, rows) + backward_flops(subject, rows)
            ),
        }
        holds = costs.ratio >= target and costs.ours <= most_s
        return Line(bar, round(costs.ratio, 3), target, holds, detail)

    def job(self, bar: str, most_minutes: float, mode: str = "generation") -> Line:
        """The paper's job out of the stages' times above; it is computed, not run.

        Responses are made as `mode` names it: `generation` is exact, `prefix` is not.
        """
        stages = ("tuning", "saliency", mode)
        missing = set(stages) - self.costs.keys()
        if missing:
            raise RuntimeError(f"not measured above: {', '.join(sorted(missing))}")

        def minutes(of: Callable[[Costs], float]) -> float:
            tuning, saliency, generation = (of(self.costs[stage]) for stage in stages)
            tuned = (EPOCHS + RETRAINED) * SAMPLES * tuning
            rest = SAMPLES * (saliency + generation) + EVALUATED * generation
            return (tuned + rest) / 60

        encoding = SAMPLES * self.subject.encode_s / 60
        ours = minutes(lambda cost: cost.ours) + encoding
        detail = {
            "computed_from": "seconds per sample of the stages above; pictures encoded once",
            "literal_minutes": round(minutes(lambda cost: cost.literal), 1),
            "encoding_minutes": round(encoding, 2),
            "after_the_job": "the purified model differs in the projector's values only: no "
            "request takes longer than before",
        }
        return Line(bar, round(ours, 1), most_minutes, ours <= most_minutes, detail)

    def _compare(self, arms: Mapping[str, Arm]) -> dict[str, Timing]:
        device = self.subject.device
        return interleaved(arms, device, self.rounds, left=lambda: self.report.left() - 30)

    def _costs(self, stage: str, found: Mapping[str, Timing]) -> Costs:
        ours = min(timing.median for name, timing in found.items() if name.startswith("ours"))
        self.costs[stage] = Costs(found["literal"].median, ours)
        return self.costs[stage]

    def _ids_of_one_step(self) -> float:
        """Ids that agree when all are committed at once: one that differs changes no other."""
        told = [self.subject.generate(number, 1) for number in range(PROMPTS)]
        return equal_share(told, self.subject.denoise(range(PROMPTS), 1))

    def _floor_ms(self, flops: float) -> float:
        """What the operations take at the ceiling measured in this run."""
        return round(flops / self.ceilings.flops * 1e3, 2)


def identity(subject: Subject) -> list[Line]:
    """What must agree where rounding is small: ids, scores, gradients."""
    ids = equal_share(
        [subject.generate(number, LENGTH) for number in range(2)],
        subject.denoise(range(2), LENGTH),
    )
    [ours] = subject.scores([0], estimator="gaussian")
    score = relative_error(ours.scores, subject.literal_scores(0))
    gradient = relative_error(subject.gradient([0], 0), subject.literal_gradient(0, 0))
    layers = subject.pair.reference.config.num_hidden_layers
    detail = {"dtype": "float32", "layers": layers, "positions": subject.positions}
    return [
        Line("identity: token ids", ids, 1.0, ids == 1.0, detail),
        Line("identity: saliency", score, CLOSE, score <= CLOSE, detail),
        Line("identity: gradients", gradient, CLOSE, gradient <= CLOSE, detail),
    ]


def seed_of(number: int) -> int:
    """Seeds whose first draw, the time t, masks about half of an answer."""
    return (0, 2, 4)[number % 3]


def equal_share(told: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """Share of positions at which two lists of answers have the same id."""
    one, other = torch.cat(list(told)), torch.cat(list(given))
    return float((one == other).double().mean())


def relative_error(given: Tensor, told: Tensor) -> float:
    """Length of the difference, as a share of the length of what is right."""
    a, b = given.double(), told.double()
    return float((a - b).norm() / b.norm())


def masks_iou(given: Tensor, told: Tensor, ratio: float = 0.3) -> float:
    """Intersection over union of the tokens that either would hide."""
    one, other = most_salient(given, ratio), most_salient(told, ratio)
    return float((one & other).sum() / (one | other).sum())


def largest(act: Callable[[int], object], counts: Sequence[int]) -> int:
    """The first of the counts whose samples fit the device's memory together."""
    for count in counts:
        try:
            act(count)
        except torch.OutOfMemoryError:
            continue
        return count
    raise RuntimeError(f"not even {counts[-1]} sample fits the device's memory")


def forward_flops(subject: Subject, rows: int) -> float:
    """Operations of one pass over one sample, its logits at `rows` only."""
    config, n = subject.pair.reference.config, subject.positions
    attention = 4 * n**2 * config.hidden_size * config.num_hidden_layers
    return 2 * n * _weights(config) + attention + _head(config, rows)


def backward_flops(subject: Subject, rows: int) -> float:
    """Operations of the way back to the embeddings, the weights being frozen.

    Attention takes five products where the way there takes two.
    """
    config, n = subject.pair.reference.config, subject.positions
    attention = 10 * n**2 * config.hidden_size * config.num_hidden_layers
    return 2 * n * _weights(config) + attention + _head(config, rows)


def _weights(config: LlavaConfig) -> int:
    """Of all layers' linear maps."""
    d, grouped = config.hidden_size, config.num_key_value_heads / config.num_attention_heads
    layer = 2 * d**2 * (1 + grouped) + 3 * d * config.intermediate_size
    return int(config.num_hidden_layers * layer)


def _head(config: LlavaConfig, rows: int) -> int:
    return 2 * rows * config.vocab_size * config.hidden_size


class Session:
    """One run of the command: what is asked, and the device's ceilings at its beginning."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.toy: bool = options.toy
        self.report = Report(options.json, options.budget)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.ceilings = self._measured()

    def run(self) -> None:
        """All lines, each in its place."""
        self._describe()
        self._identity()
        self._free()
        self._family("llada_v", self._llada_v)
        self._free()
        self._family("lavida", self._lavida)
        self._free()
        self.report.attempt("ceilings after", 5, self._drift)

    def _describe(self) -> None:
        cuda = self.device.type == "cuda"
        detail = {
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "toy": self.toy,
            **self.ceilings.to_json(),
        }
        self.report.add(Line("ceilings before", None, None, True, detail))

    def _identity(self) -> None:
        """Two layers in float32, at the true widths."""
        self.report.attempt_all(
            "identity", lambda: identity(self._subject("llada_v", 2, torch.float32, prompts=2))
        )

    def _family(self, name: str, bars: Callable[[Bench], None]) -> None:
        """Build a family and measure its bars."""
        built: list[Bench] = []

        def build() -> Line:
            subject = self._subject(name, self.options.layers, self.dtype, PROMPTS)
            built.append(Bench(subject, self.report, self.ceilings, self.options.rounds))
            detail = {"positions": subject.positions, "encode_ms": subject.encode_s * 1e3}
            return Line(f"{name}: built", None, None, True, detail)

        self.report.attempt(f"{name}: built", 60, build)
        for bench in built:
            bars(bench)

    def _llada_v(self, bench: Bench) -> None:
        attempt = self.report.attempt
        attempt("H-a", 60, lambda: bench.generation("H-a", LENGTH, 1.35))
        attempt("H-c", 40, lambda: bench.saliency("H-c", 2.5, 0.40 * PROBES / 8))
        attempt("H-d", 20, lambda: bench.tuning("H-d", 1.5, 0.090))
        attempt("H-e", 0, lambda: bench.job("H-e", 85))
        attempt("H-b", 60, lambda: bench.prefix("H-b", LENGTH, 15.0, samples=16, most_s=0.075))
        attempt("H-e prefix", 0, lambda: bench.job("H-e prefix", 45, "prefix"))

    def _lavida(self, bench: Bench) -> None:
        attempt = self.report.attempt
        steps = LENGTH // 2
        attempt("LaViDa generation", 30, lambda: bench.generation("LaViDa generation", steps, None))
        attempt("LaViDa saliency", 20, lambda: bench.saliency("LaViDa saliency", None, None))
        attempt("H-b LaViDa", 30, lambda: bench.prefix("H-b LaViDa", steps, 4.0, samples=1))

    def _drift(self) -> Line:
        after = self._measured()
        drift = self.ceilings.drift(after)
        return Line("ceilings after", round(drift, 4), DRIFT, drift <= DRIFT, after.to_json())

    def _subject(self, name: str, layers: int | None, dtype: torch.dtype, prompts: int) -> Subject:
        shape = SHAPES[name].of(layers, toy=self.toy)
        return Subject.of(shape.build(self.options.tokenizer, self.device, dtype), prompts)

    def _measured(self) -> Ceilings:
        cuda = self.device.type == "cuda"
        sizes = {"width": 4096, "repeats": 200} if cuda else {"width": 256, "repeats": 10}
        return Ceilings.of(self.device, self.dtype, **sizes)

    def _free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--tokenizer", type=Path, default=BUILTIN / "disp-tiny-llada-v")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--budget", type=float, default=420, help="seconds for everything [420]")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison [5]")
    parser.add_argument("--layers", type=int, help="fewer than there are, for a smaller card")
    parser.add_argument("--toy", action="store_true", help="tiny widths: only to try the code")
    Session(parser.parse_args(arguments)).run()


if __name__ == "__main__":
    main()
