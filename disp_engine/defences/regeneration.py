"""Answers a dataset anew under a guard, in micro-batches whose results are kept."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from disp_engine.context import RunContext, check
from disp_engine.defences.rewriting import Draft, Rewritten, prompt_after
from disp_engine.errors import SampleError
from disp_engine.guards.guard import Cell, Guard, visual_tokens
from disp_engine.records import Embedded, Sample
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache


@dataclass(frozen=True)
class Regenerated:
    """A sample's new responses, and the tokens kept from the model when it gave the first one."""

    rewritten: Rewritten
    removed: tuple[Cell, ...] = ()

    @property
    def first(self) -> str | None:
        """The first new response, if there is one."""
        return self.rewritten.responses[0] if self.rewritten.responses else None

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Regenerated":
        """What `asdict` has made of one."""
        removed = tuple(Cell(**cell) for cell in told["removed"])
        return cls(Rewritten(**told["rewritten"]), removed)


@dataclass(eq=False)
class Answering(Draft):
    """A draft that also keeps what the guard removed in its first turn."""

    removed: tuple[Cell, ...] = field(default=())


@dataclass(frozen=True)
class Regenerator:
    """Every assistant turn is answered anew, the earlier ones standing as they now are."""

    guard: Guard
    cache: FeatureCache
    length: int
    micro_batch: int
    context: RunContext

    def run(self, samples: Sequence[Sample], stage: Stage) -> dict[str, Regenerated]:
        """All samples, by id."""
        found: dict[str, Regenerated] = {}
        for start in range(0, len(samples), self.micro_batch):
            file = f"{start:07d}.json"
            if not stage.has(file):
                batch = samples[start : start + self.micro_batch]
                stage.write_json(file, [asdict(one) for one in self._batch(batch)])
                check(self.context)
            for told in stage.read_json(file):
                found[told["rewritten"]["id"]] = Regenerated.from_json(told)
            self.context.progress(len(found), len(samples), "samples")
        stage.finish()
        return found

    @torch.no_grad()
    def _batch(self, batch: Sequence[Sample]) -> list[Regenerated]:
        drafts = [Answering(sample) for sample in batch]
        for turn in range(max(len(sample.turns) // 2 for sample in batch)):
            asked: list[Answering] = []
            prompts: list[Embedded] = []
            for draft in drafts:
                if draft.wants(turn):
                    self._ask(draft, asked, prompts)
            if asked:
                self._answer(asked, prompts, turn)
        return [Regenerated(draft.result(), draft.removed) for draft in drafts]

    def _ask(self, draft: Answering, asked: list[Answering], prompts: list[Embedded]) -> None:
        try:
            prompt = prompt_after(self.guard.model, self.cache, draft.sample, draft.responses)
            draft.tokens = len(visual_tokens(prompt))
            prompts.append(prompt)
            asked.append(draft)
        except SampleError as error:
            draft.failure = str(error)

    def _answer(self, asked: Sequence[Answering], prompts: Sequence[Embedded], turn: int) -> None:
        answers = self.guard.answer_prompts(prompts, self.length)
        for draft, answer in zip(asked, answers, strict=True):
            draft.masked.append(len(answer.verdict.removed))
            if turn == 0:
                draft.removed = answer.verdict.removed
            draft.take(answer.text.strip())
