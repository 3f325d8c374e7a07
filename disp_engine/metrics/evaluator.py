"""Lets a model answer held-out items, micro-batch by micro-batch, and keeps the answers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from disp_engine.context import RunContext, check
from disp_engine.data.dataset import Dataset
from disp_engine.errors import SampleError
from disp_engine.gate import Gate
from disp_engine.interfaces import Generation, VisualModel
from disp_engine.metrics.evaluation import Answer, compared, measure
from disp_engine.metrics.success import ContainsAny
from disp_engine.records import Embedded, Sample
from disp_engine.responses import respond
from disp_engine.stages import Stage, digest
from disp_engine.training.examples import FeatureCache, prepare


@dataclass(frozen=True)
class EvaluationSets:
    """Held-out items with the trigger, without it, and what counts as success; each optional."""

    triggered: Dataset | None = None
    clean: Dataset | None = None
    success: ContainsAny | None = None

    @property
    def sha256(self) -> dict[str, str | None]:
        """Digest of each set."""
        return {
            "triggered": self.triggered.sha256 if self.triggered else None,
            "clean": self.clean.sha256 if self.clean else None,
        }


@dataclass(frozen=True)
class Evaluator:
    """Answers each item's first question; items that cannot be answered are kept as failed."""

    model: VisualModel
    cache: FeatureCache
    generation: Generation
    micro_batch: int
    context: RunContext
    gate: Gate | None = None

    def run(self, sets: EvaluationSets, stage: Stage) -> dict[str, Any]:
        """All rates the sets allow."""
        both = {"triggered": sets.triggered, "clean": sets.clean}
        total = sum(len(d.samples) + len(d.refused) for d in both.values() if d)
        answers: dict[str, list[Answer] | None] = {}
        done = 0
        for name, dataset in both.items():
            answers[name] = self.answers(dataset, stage, name, done, total) if dataset else None
            done += len(answers[name] or [])
        stage.finish()
        return measure(answers["triggered"], answers["clean"], sets.success)

    def answers(
        self, dataset: Dataset, stage: Stage, name: str, done: int = 0, total: int = 0
    ) -> list[Answer]:
        """The answer to every item, made now or kept in the stage.

        `done` of `total` items are told to the context as already answered. A shortcut is taken
        where the gate lets it through.
        """
        prepared = prepare(dataset, self.model, self.cache)
        items = sorted([*prepared.usable, *prepared.without_images], key=lambda s: s.id)
        cut = digest([item.id for item in items])[:12]
        answers = [
            Answer(sample, "", None, failure=reason) for sample, reason in prepared.failed.items()
        ]
        asking = self._let_through(name, items, stage)
        for start in range(0, len(items), self.micro_batch):
            file = f"{name}-{cut}-{start:07d}.json"
            if not stage.has(file):
                found = asking._batch(items[start : start + self.micro_batch])
                stage.write_json(file, [asdict(answer) for answer in found])
                check(self.context)
            answers += [Answer(**answer) for answer in stage.read_json(file)]
            self.context.progress(done + len(answers), max(total, len(answers)), "samples")
        return answers

    def _let_through(self, name: str, items: Sequence[Sample], stage: Stage) -> "Evaluator":
        if self.gate is None:
            return replace(self, generation=self.generation.exactly())

        def answers(drawn: Sequence[Sample], generation: Generation) -> list[Answer]:
            return replace(self, generation=generation)._batch(drawn)

        given = (name, self.generation, items, stage, answers)
        return replace(self, generation=self.gate.let_through(*given))

    def _batch(self, items: Sequence[Sample]) -> list[Answer]:
        prompts: dict[str, Embedded] = {}
        answers: dict[str, Answer] = {}
        for item in items:
            try:
                prompts[item.id] = self._prompt(item)
            except SampleError as error:
                answers[item.id] = Answer(item.id, item.turns[1].text, None, failure=str(error))
        asked = [item for item in items if item.id in prompts]
        shown = self.shown(list(prompts.values())) if asked else []
        responses = respond(self.model, shown, self.generation) if asked else []
        for item, response in zip(asked, responses, strict=True):
            answers[item.id] = self._answer(item, response)
        return [answers[item.id] for item in items]

    def shown(self, prompts: Sequence[Embedded]) -> Sequence[Embedded]:
        """What the model is shown of its prompts: all."""
        return prompts

    @torch.no_grad()
    def _prompt(self, item: Sample) -> Embedded:
        first = item.turns[:1]
        return self.model.embed(self.model.tokenise_prompt(first), self.cache.of(item, first))

    def _answer(self, item: Sample, response: Int[Tensor, " T"]) -> Answer:
        return compared(self.model, item, response, self.model.text(response))
