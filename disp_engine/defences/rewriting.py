"""Rewrites responses under masked pictures (Algorithm 1 lines 4-14, Eqs. 9-11)."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from disp_engine.context import RunContext, check
from disp_engine.data.dataset import IMAGE_MARK
from disp_engine.defences.settings import DispSettings
from disp_engine.errors import SampleError
from disp_engine.gate import Gate
from disp_engine.interfaces import DiffusionModel, Generation, MaskedDenoiser, VisualModel
from disp_engine.records import Embedded, Sample, Turn
from disp_engine.saliency.estimator import Saliency, SaliencySettings, estimate_saliency
from disp_engine.saliency.masking import at_random, hide_text, most_salient
from disp_engine.sharing import Sharing
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache
from disp_engine.training.order import generator_for


@dataclass(frozen=True)
class Rewritten:
    """A sample's new responses in order, or None with the reason why it has none.

    `masked` counts the hidden visual tokens of each turn, `tokens` those of the last prompt.
    """

    id: str
    responses: list[str] | None
    masked: list[int]
    tokens: int
    failure: str | None = None


@dataclass(eq=False)
class Draft:
    """A sample on its way to new responses, unless it is `skipped`."""

    sample: Sample
    skipped: bool = False
    responses: list[str] = field(default_factory=list)
    masked: list[int] = field(default_factory=list)
    tokens: int = 0
    failure: str | None = None

    def wants(self, turn: int) -> bool:
        """Whether this assistant turn is there to be rewritten."""
        return not self.skipped and self.failure is None and turn < len(self.sample.turns) // 2

    def take(self, text: str) -> None:
        """Add a response, unless it is none."""
        turn = len(self.responses) + 1
        if not text:
            self.failure = f"the model gave an empty response to turn {turn}"
        elif IMAGE_MARK in text:
            self.failure = f"the model's response to turn {turn} contains {IMAGE_MARK}"
        else:
            self.responses.append(text)

    def result(self) -> Rewritten:
        """What is kept of it."""
        responses = None if self.failure else self.responses
        return Rewritten(self.sample.id, responses, self.masked, self.tokens, self.failure)


@dataclass(frozen=True)
class Rewriter:
    """Scores and rewrites samples in micro-batches whose results are kept.

    Every assistant turn is rewritten under the sample's own prompt, in which the earlier
    assistant turns are already rewritten. The hidden tokens stay hidden to the last step. `chosen`
    are the ids of the samples to rewrite, None all of them.
    """

    model: DiffusionModel
    cache: FeatureCache
    settings: DispSettings
    generation: Generation
    seed: int
    context: RunContext
    sharing: Sharing
    gate: Gate
    chosen: frozenset[str] | None = None

    @property
    def saliency_settings(self) -> SaliencySettings:
        """The estimator's settings for this run."""
        return self.settings.saliency(self.generation, self.seed)

    def score(self, samples: Sequence[Sample], stage: Stage) -> dict[str, Any]:
        """Keep the saliency of every sample's first prompt; return what the report says of it."""
        for start, batch in self._left(samples, stage, _scores_file):
            prompts = [prompt_after(self.model, self.cache, sample, []) for sample in batch]
            self._keep(self._estimate(prompts), stage, _scores_file(start))
        stage.finish()
        relative = [
            _relative_error(found)
            for start, _ in self._batches(samples)
            for found in self._kept(stage, _scores_file(start))
        ]
        mean = sum(relative) / len(relative)
        return {
            "mean_relative_standard_error": mean if math.isfinite(mean) else None,
            **asdict(self.saliency_settings),
        }

    def saliency_at(self, start: int, scores: Stage) -> list[Saliency]:
        """What is kept of the micro-batch that begins at a place."""
        return self._kept(scores, _scores_file(start))

    def rewrite(
        self, samples: Sequence[Sample], scores: Stage | None, stage: Stage
    ) -> dict[str, Rewritten]:
        """Rewrite what is chosen; `scores` is the finished saliency stage, where there is one."""
        self.rewrite_parts(samples, scores, stage)
        stage.finish()
        return {
            result["id"]: Rewritten(**result)
            for start, _ in self._batches(samples)
            for result in stage.read_json(_responses_file(start))
        }

    def rewrite_parts(self, samples: Sequence[Sample], scores: Stage | None, stage: Stage) -> None:
        """Rewrite what others leave to this run."""
        rewriter = self._let_through(samples, scores, stage)
        for start, batch in self._left(samples, stage, _responses_file):
            first = self._kept(scores, _scores_file(start)) if scores else None
            results = rewriter._rewrite_batch(batch, start, first, scores)
            stage.write_json(_responses_file(start), [asdict(result) for result in results])

    def _let_through(
        self, samples: Sequence[Sample], scores: Stage | None, stage: Stage
    ) -> "Rewriter":
        """This rewriter with a shortcut, or without it where that says something else."""

        def rewrite(places: Sequence[int], generation: Generation) -> list[Rewritten]:
            first = [self._saliency_of(place, scores) for place in places] if scores else None
            rewriter, drawn = replace(self, generation=generation), [samples[n] for n in places]
            return rewriter._rewrite_batch(drawn, len(samples), first, scores)

        wanted = [place for place, sample in enumerate(samples) if self._wanted(sample)]
        let_through = self.gate.let_through("purify", self.generation, wanted, stage, rewrite)
        return replace(self, generation=let_through)

    def _saliency_of(self, place: int, scores: Stage) -> Saliency:
        start = place - place % self.settings.micro_batch
        return self.saliency_at(start, scores)[place - start]

    def _left(
        self, samples: Sequence[Sample], stage: Stage, file: Callable[[int], str]
    ) -> Iterator[tuple[int, Sequence[Sample]]]:
        """Yield the micro-batches whose file this run has to make."""
        for part in self.sharing.parts(stage, len(samples)):
            for start, batch in self._batches(samples):
                if part.first <= start < part.last:
                    if not stage.has(file(start)):
                        yield start, batch
                        check(self.context)
                    done = part.done + start - part.first + len(batch)
                    self.context.progress(done, len(samples), "samples")
        self.context.progress(len(samples), len(samples), "samples")

    def _batches(self, samples: Sequence[Sample]) -> list[tuple[int, Sequence[Sample]]]:
        size = self.settings.micro_batch
        return [(start, samples[start : start + size]) for start in range(0, len(samples), size)]

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
        tensors = stage.read_tensors(file)
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
        drafts = [Draft(sample, skipped=not self._wanted(sample)) for sample in batch]
        for turn in range(max(len(sample.turns) // 2 for sample in batch)):
            asked: list[Draft] = []
            prompts: list[Embedded] = []
            for draft in drafts:
                if draft.wants(turn):
                    self._ask(draft, asked, prompts)
            known = [first[drafts.index(d)] for d in asked] if first and turn == 0 else None
            if asked:
                chosen = self._choose(prompts, start, turn, known, scores)
                self._answer(asked, self._muted(prompts, start, turn), chosen)
        return [draft.result() for draft in drafts if not draft.skipped]

    def _wanted(self, sample: Sample) -> bool:
        return self.chosen is None or sample.id in self.chosen

    def _ask(self, draft: Draft, asked: list[Draft], prompts: list[Embedded]) -> None:
        try:
            prompts.append(prompt_after(self.model, self.cache, draft.sample, draft.responses))
            asked.append(draft)
        except SampleError as error:
            draft.failure = str(error)

    def _answer(
        self,
        asked: Sequence[Draft],
        prompts: Sequence[Embedded],
        chosen: Sequence[Bool[Tensor, " _"]],
    ) -> None:
        """Denoise under the masks, which stay to the last step (Eq. 11)."""
        hidden = [
            self.model.hide(prompt, choice) for prompt, choice in zip(prompts, chosen, strict=True)
        ]
        answers = self.model.denoise(hidden, self.generation)
        for draft, choice, answer in zip(asked, chosen, answers, strict=True):
            draft.masked.append(int(choice.sum()))
            draft.tokens = len(choice)
            draft.take(self.model.text(answer).strip())

    def _muted(self, prompts: Sequence[Embedded], start: int, turn: int) -> Sequence[Embedded]:
        """The prompts with a share of their text hidden, where there is to be any."""
        ratio = self.settings.text_mask_ratio
        if not ratio:
            return prompts
        generator = generator_for(self.seed, start, stream=200 + turn)
        e_mask = cast(MaskedDenoiser, self.model).mask_embedding
        return [hide_text(prompt, ratio, e_mask, generator) for prompt in prompts]

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


@torch.no_grad()
def prompt_after(
    model: VisualModel, cache: FeatureCache, sample: Sample, responses: Sequence[str]
) -> Embedded:
    """The prompt of a sample's next assistant turn, `responses` standing in the earlier ones."""
    turns: list[Turn] = []
    for number, question in enumerate(sample.turns[::2][: len(responses) + 1]):
        turns.append(question)
        if number < len(responses):
            turns.append(Turn("gpt", responses[number]))
    return model.embed(model.tokenise_prompt(turns), cache.of(sample, turns))


def resolved(samples: Sequence[Sample], rewritten: Mapping[str, Rewritten]) -> list[Sample]:
    """The samples with their new responses, where they have some; without those that failed."""
    found = []
    for sample in samples:
        done = rewritten.get(sample.id)
        if done is None:
            found.append(sample)
        elif done.responses is not None:
            found.append(sample.with_responses(done.responses))
    return found


def _scores_file(start: int) -> str:
    return f"{start:07d}.safetensors"


def _responses_file(start: int) -> str:
    return f"{start:07d}.json"


def _relative_error(saliency: Saliency) -> float:
    """Standard error of the scores as a share of their sum, over all tokens together."""
    return float(saliency.standard_error.sum() / saliency.scores.sum().clamp(min=1e-300))
