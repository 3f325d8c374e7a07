"""Rewrites responses under masked pictures (Algorithm 1 lines 4-14, Eqs. 9-11)."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from disp_engine.context import RunContext, check
from disp_engine.defences.settings import DispSettings
from disp_engine.interfaces import DiffusionModel, Generation
from disp_engine.records import Embedded, Sample, Turn
from disp_engine.saliency.estimator import Saliency, SaliencySettings, estimate_saliency
from disp_engine.saliency.masking import at_random, hide, most_salient
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache
from disp_engine.training.order import generator_for


@dataclass(frozen=True)
class Rewritten:
    """A sample's new responses in order, or None with the reason why it has none.

    `masked` counts the hidden visual tokens of each turn, `tokens` all of them.
    """

    id: str
    responses: list[str] | None
    masked: list[int]
    tokens: int
    failure: str | None = None


@dataclass(frozen=True)
class Rewriter:
    """Scores and rewrites samples in micro-batches whose results are kept.

    Every assistant turn is rewritten under the sample's own prompt, in which the earlier
    assistant turns are already rewritten. The hidden tokens stay hidden to the last step.
    """

    model: DiffusionModel
    cache: FeatureCache
    settings: DispSettings
    generation: Generation
    seed: int
    context: RunContext

    @property
    def saliency_settings(self) -> SaliencySettings:
        """The estimator's settings for this run."""
        return self.settings.saliency(self.generation, self.seed)

    def score(self, samples: Sequence[Sample], stage: Stage) -> dict[str, Any]:
        """Keep the saliency of every sample's first prompt; return what the report says of it."""
        relative: list[float] = []
        for start, batch in self._batches(samples):
            file = f"{start:07d}.safetensors"
            if not stage.has(file):
                prompts = [self._prompt(sample, []) for sample in batch]
                self._keep(self._estimate(prompts), stage, file)
                check(self.context)
            relative += [_relative_error(s) for s in self._kept(stage, file)]
            self.context.progress(start + len(batch), len(samples), "samples")
        stage.finish()
        return {
            "estimator": "gaussian",
            "mean_relative_standard_error": sum(relative) / max(1, len(relative)),
            **asdict(self.saliency_settings),
        }

    def rewrite(
        self, samples: Sequence[Sample], scores: Stage | None, stage: Stage
    ) -> dict[str, Rewritten]:
        """Rewrite all samples; `scores` is the finished saliency stage where masking needs it."""
        found: dict[str, Rewritten] = {}
        for start, batch in self._batches(samples):
            file = f"{start:07d}.json"
            if not stage.has(file):
                first = self._kept(scores, f"{start:07d}.safetensors") if scores else None
                results = self._rewrite_batch(batch, start, first, scores)
                stage.write_json(file, [asdict(result) for result in results])
                check(self.context)
            found |= {r["id"]: Rewritten(**r) for r in stage.read_json(file)}
            self.context.progress(start + len(batch), len(samples), "samples")
        stage.finish()
        return found

    def _batches(self, samples: Sequence[Sample]) -> list[tuple[int, Sequence[Sample]]]:
        size = self.settings.micro_batch
        return [(start, samples[start : start + size]) for start in range(0, len(samples), size)]

    def _prompt(self, sample: Sample, responses: Sequence[str]) -> Embedded:
        turns: list[Turn] = []
        for number, question in enumerate(sample.turns[::2][: len(responses) + 1]):
            turns.append(question)
            if number < len(responses):
                turns.append(Turn("gpt", responses[number]))
        with torch.no_grad():
            return self.model.embed(self.model.tokenise_prompt(turns), self.cache.of(sample))

    def _estimate(self, prompts: Sequence[Embedded]) -> list[Saliency]:
        return estimate_saliency(self.model, prompts, self.saliency_settings)

    @staticmethod
    def _keep(found: Sequence[Saliency], stage: Stage, file: str) -> None:
        tensors = {}
        for number, saliency in enumerate(found):
            tensors[f"scores.{number}"] = saliency.scores
            tensors[f"standard_error.{number}"] = saliency.standard_error
        stage.write_tensors(file, tensors)

    @staticmethod
    def _kept(stage: Stage, file: str) -> list[Saliency]:
        tensors, _ = stage.read_tensors(file)
        return [
            Saliency(tensors[f"scores.{i}"], tensors[f"standard_error.{i}"])
            for i in range(len(tensors) // 2)
        ]

    def _rewrite_batch(
        self,
        batch: Sequence[Sample],
        start: int,
        first: Sequence[Saliency] | None,
        scores: Stage | None,
    ) -> list[Rewritten]:
        responses: list[list[str]] = [[] for _ in batch]
        masked: list[list[int]] = [[] for _ in batch]
        tokens = [0] * len(batch)
        for turn in range(max(len(sample.turns) // 2 for sample in batch)):
            active = [
                i
                for i, sample in enumerate(batch)
                if len(sample.turns) // 2 > turn and len(responses[i]) == turn
            ]
            prompts = [self._prompt(batch[i], responses[i]) for i in active]
            saliency = [first[i] for i in active] if first and turn == 0 else None
            chosen = self._choose(prompts, start, turn, saliency, scores)
            hidden = [
                hide(prompt, choice, self.model.mask_embedding)
                for prompt, choice in zip(prompts, chosen, strict=True)
            ]
            answers = self.model.denoise(hidden, self.generation)
            for i, choice, answer in zip(active, chosen, answers, strict=True):
                masked[i].append(int(choice.sum()))
                tokens[i] = len(choice)
                if text := self.model.text(answer).strip():
                    responses[i].append(text)
        return [
            _rewritten(sample, responses[i], masked[i], tokens[i]) for i, sample in enumerate(batch)
        ]

    def _choose(
        self,
        prompts: Sequence[Embedded],
        start: int,
        turn: int,
        first: Sequence[Saliency] | None,
        scores: Stage | None,
    ) -> list[Bool[Tensor, " Lv"]]:
        """The tokens to hide in each prompt."""
        ratio = self.settings.mask_ratio
        sizes = [int(prompt.visual().sum()) for prompt in prompts]
        if scores is None:
            if self.settings.masking == "none":
                return [torch.zeros(size, dtype=torch.bool) for size in sizes]
            generator = generator_for(self.seed, start, stream=100 + turn)
            return [at_random(size, ratio, generator) for size in sizes]
        saliency = first or self._later_turn(prompts, scores)
        return [most_salient(s.scores, ratio) for s in saliency]

    def _later_turn(self, prompts: Sequence[Embedded], scores: Stage) -> list[Saliency]:
        """Saliency of prompts that hold rewritten turns, kept under their content."""
        content = hashlib.sha256()
        for prompt in prompts:
            content.update(prompt.embeddings.cpu().contiguous().view(torch.uint8).numpy().data)
        file = f"turn-{content.hexdigest()[:24]}.safetensors"
        if not scores.has(file):
            self._keep(self._estimate(prompts), scores, file)
        return self._kept(scores, file)


def _relative_error(saliency: Saliency) -> float:
    """Standard error of the scores as a share of their sum, over all tokens together."""
    return float(saliency.standard_error.sum() / saliency.scores.sum().clamp(min=1e-300))


def _rewritten(sample: Sample, responses: list[str], masked: list[int], tokens: int) -> Rewritten:
    if len(responses) < len(sample.turns) // 2:
        reason = f"the model gave an empty response to turn {len(responses) + 1}"
        return Rewritten(sample.id, None, masked, tokens, reason)
    return Rewritten(sample.id, responses, masked, tokens)
