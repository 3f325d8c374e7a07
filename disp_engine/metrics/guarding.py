"""What a guard is worth: answers with and without it, on the same questions, in the same run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from disp_engine.context import RunContext, check
from disp_engine.data.dataset import IMAGE_MARK, Dataset
from disp_engine.errors import SampleError
from disp_engine.guards.guard import Cell, Guard, Guarded, Question, Verdict
from disp_engine.metrics.auroc import auroc
from disp_engine.metrics.detection import Detection
from disp_engine.metrics.evaluation import Answer, compared, measure
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.rate import Rate
from disp_engine.metrics.utility import trade_off
from disp_engine.records import Sample
from disp_engine.stages import Stage

RATES = ("asr_with_trigger", "asr_without_trigger", "clean_performance", "robust_performance",
         "token_agreement")  # fmt: skip


@dataclass
class Course:
    """What one guard made of the items of the sets, by the set's name."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    answered: int = 0

    @property
    def all_seconds(self) -> float:
        """Of all sets together."""
        return sum(self.seconds.values())

    def add(
        self, name: str, samples: Sequence[Sample], guarded: Sequence[Guarded], guard: Guard
    ) -> None:
        """Take the answers to some items of a set."""
        for sample, one in zip(samples, guarded, strict=True):
            ids = guard.model.tokenise_response(one.text)
            answer = compared(guard.model, sample, ids, one.text)
            self.answers.setdefault(name, []).append(answer)
            self.verdicts.setdefault(name, []).append(one.verdict)
        self.answered += len(samples)

    def fail(self, name: str, sample: str, reason: str) -> None:
        """Count an item that could not be asked."""
        failed = Answer(sample, "", None, failure=reason)
        self.answers.setdefault(name, []).append(failed)

    def join(self, other: "Course") -> None:
        """Take all that another one has."""
        for name, answers in other.answers.items():
            self.answers.setdefault(name, []).extend(answers)
        for name, verdicts in other.verdicts.items():
            self.verdicts.setdefault(name, []).extend(verdicts)
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.answered += other.answered

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Course":
        """What `asdict` has made of one."""
        answers = {n: [Answer(**one) for one in part] for n, part in told["answers"].items()}
        verdicts = {n: [_verdict(one) for one in part] for n, part in told["verdicts"].items()}
        return cls(answers, verdicts, told["seconds"], told["answered"])


@dataclass
class GuardEvaluator:
    """Asks every item's first question of the bare model and of the guarded one.

    Batches take turns, so that both see the same machine; latency is that of whole batches. What a
    `stage` keeps is not asked again, and its time is the one that was taken then.
    """

    undefended: Guard
    guard: Guard
    length: int
    batch: int
    context: RunContext
    warm: bool = field(default=False, init=False)

    def run(self, sets: EvaluationSets, stage: Stage | None = None) -> dict[str, Any]:
        """All rates that the sets allow, of both, and how much longer the guard takes."""
        bare, guarded = Course(), Course()
        given = {"triggered": sets.triggered, "clean": sets.clean}
        both = {name: dataset for name, dataset in given.items() if dataset is not None}
        total = sum(len(dataset.samples) for dataset in both.values())
        for name, dataset in both.items():
            for course in (bare, guarded):
                for sample, reason in dataset.refused.items():
                    course.fail(name, sample, reason)
            for start in range(0, len(dataset.samples), self.batch):
                parts = self._batch(name, dataset, start, stage)
                for course, part in zip((bare, guarded), parts, strict=True):
                    course.join(part)
                self.context.progress(bare.answered, total, "samples")
                check(self.context)
        if stage is not None:
            stage.finish()
        return _row(guarded, sets, bare) | {"undefended": _rates(bare, sets)}

    def _batch(
        self, name: str, dataset: Dataset, start: int, stage: Stage | None
    ) -> tuple[Course, Course]:
        """A batch's courses, bare and guarded, run now or kept in the stage."""
        file = f"{name}-{start:07d}.json"
        if stage is not None and stage.has(file):
            bare, guarded = (Course.from_json(one) for one in stage.read_json(file))
            return bare, guarded
        if not self.warm:  # one batch of each, untimed: first passes are slower than later ones
            self._ask(name, dataset, start)
            self.warm = True
        courses = self._ask(name, dataset, start)
        if stage is not None:
            stage.write_json(file, [asdict(course) for course in courses])
        return courses

    def _ask(self, name: str, dataset: Dataset, start: int) -> tuple[Course, Course]:
        samples, questions = [], []
        bare, guarded = Course(), Course()
        for sample in dataset.samples[start : start + self.batch]:
            try:
                questions.append(question_of(sample, dataset))
                samples.append(sample)
            except SampleError as error:
                bare.fail(name, sample.id, str(error))
                guarded.fail(name, sample.id, str(error))
        turns = [(self.undefended, bare), (self.guard, guarded)]
        if start // self.batch % 2:
            turns.reverse()  # who is asked second finds a warmer machine
        for guard, course in turns:
            if samples:
                before = time.monotonic()
                answers = guard.answer(questions, self.length)
                course.seconds[name] = time.monotonic() - before
                course.add(name, samples, answers, guard)
        return bare, guarded


def question_of(sample: Sample, dataset: Dataset) -> Question:
    """The first question of an item, with its pictures."""
    first = sample.turns[:1]
    shown = first[0].text.count(IMAGE_MARK)
    if not shown:
        raise SampleError("The question has no picture.")
    return Question(first, tuple(dataset.image(name) for name in sample.images[:shown]))


def _verdict(told: Mapping[str, Any]) -> Verdict:
    return Verdict(told["flagged"], told["score"], tuple(Cell(**cell) for cell in told["removed"]))


def _rates(course: Course, sets: EvaluationSets) -> dict[str, Any]:
    found = measure(course.answers.get("triggered"), course.answers.get("clean"), sets.success)
    rates = {name: found[name] for name in RATES}
    seconds = course.all_seconds / course.answered if course.answered else None
    cp, asr = rates["clean_performance"], rates["asr_with_trigger"]
    return rates | {
        "trade_off": trade_off(cp and cp["rate"], asr and asr["rate"]),
        "seconds_per_question": seconds,
    }


def _row(course: Course, sets: EvaluationSets, bare: Course) -> dict[str, Any]:
    ratio = course.all_seconds / bare.all_seconds if bare.all_seconds else None
    ratios = {name: course.seconds[name] / seconds for name, seconds in bare.seconds.items()}
    return _rates(course, sets) | {
        "detection": _detection(course.verdicts).to_json(),
        "removed_tokens": {
            name: sum(len(verdict.removed) for verdict in verdicts) / len(verdicts)
            for name, verdicts in course.verdicts.items()
        },
        "latency_ratio": ratio,
        "latency_ratio_of": ratios,
    }


def _detection(verdicts: dict[str, list[Verdict]]) -> Detection:
    """Of a guard that does not detect, nothing is scored."""
    triggered, clean = verdicts.get("triggered", []), verdicts.get("clean", [])
    hits, misses = (
        [verdict.score for verdict in shown if verdict.score is not None]
        for shown in (triggered, clean)
    )
    area = auroc(np.array([*hits, *misses]), np.arange(len(hits) + len(misses)) < len(hits))
    return Detection(area, _flagged(triggered), _flagged(clean))


def _flagged(verdicts: Sequence[Verdict]) -> Rate:
    decided = [verdict.flagged for verdict in verdicts if verdict.flagged is not None]
    return Rate(sum(decided), len(decided))
