"""The entropy-bound sampler over batches, with a generator for each row.

Transformers' own loop takes token ids alone and draws from the global generator, so it can
neither see hidden visual tokens nor be repeated row by row. Its rules are used as they are: the
acceptance, the temperature and the stopping. With one row the draws are made in its order.
Letters: B rows, T canvas, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
    LinearTemperatureScheduleLogitsProcessor,
    StableAndConfidentStoppingCriteria,
)

from disp_engine.models.diffusion_gemma.backbone import Backbone, Prefix
from disp_engine.models.diffusion_gemma.config import Sampling


@dataclass(frozen=True)
class Sampler:
    """Denoises canvases of `length` tokens, each in at most `steps` steps."""

    backbone: Backbone
    sampling: Sampling
    length: int
    steps: int

    def answers(
        self, prefix: Prefix, canvases: int, generators: Sequence[torch.Generator]
    ) -> Int[Tensor, "B A"]:
        """Denoise canvas after canvas; once all rows have ended, no more are begun."""
        written: list[Tensor] = []
        ended = torch.zeros(len(generators), dtype=torch.bool, device=prefix.attended.device)
        ends = torch.tensor(self.sampling.ends, device=prefix.attended.device)
        for number in range(canvases):
            if number:
                prefix = self.backbone.go_on(prefix, written[-1])
            written.append(self._canvas(prefix, generators, ended))
            ended = ended | torch.isin(written[-1], ends).any(dim=1)
            if bool(ended.all()):
                break
        return torch.cat(written, dim=1)

    def _canvas(
        self, prefix: Prefix, generators: Sequence[torch.Generator], ended: Bool[Tensor, " B"]
    ) -> Int[Tensor, "B T"]:
        done = ended.clone()
        canvas = self._noise(generators, done, None)
        best, guess = canvas, None
        rules: Any = EntropyBoundSampler(
            EntropyBoundSamplerConfig(self.sampling.entropy_bound),
            self.length,
            self.backbone.config.vocab_size,
            self.steps,
        )
        cool: Any = LinearTemperatureScheduleLogitsProcessor(
            self.sampling.t_min, self.sampling.t_max, self.steps
        )
        stop: Any = StableAndConfidentStoppingCriteria(
            self.sampling.stability, self.sampling.confidence
        )
        for step in range(self.steps, 0, -1):
            raw = self.backbone.logits(self.backbone.decode(prefix, canvas, guess))
            logits = cool(canvas, raw, cur_step=torch.tensor(step, dtype=torch.int32))
            drawn = self._drawn(logits, canvas, generators, done)
            accepted = rules.accept_canvas(canvas, drawn, logits, step)
            noisy = self._noise(generators, done, accepted)
            new = torch.where(rules.accepted_token_mask, accepted, noisy)
            if guess is not None:
                logits = torch.where(done[:, None, None], guess, logits)
            best = torch.where(done[:, None], best, logits.argmax(dim=-1))
            canvas = torch.where(done[:, None], canvas, new)
            done = done | stop(best, logits)
            guess = logits.to(self.backbone.embedding.dtype)
            if bool(done.all()):
                break
        return best

    def _noise(
        self,
        generators: Sequence[torch.Generator],
        done: Bool[Tensor, " B"],
        present: Int[Tensor, "B T"] | None,
    ) -> Int[Tensor, "B T"]:
        """Uniformly random tokens; rows that are done draw nothing and keep what they have."""
        size = self.backbone.config.vocab_size
        rows = [
            torch.zeros(self.length, dtype=torch.long)
            if bool(done[row])
            else torch.randint(size, (1, self.length), generator=generator)[0]
            for row, generator in enumerate(generators)
        ]
        noise = torch.stack(rows).to(done.device)
        return noise if present is None else torch.where(done[:, None], present, noise)

    def _drawn(
        self,
        logits: Float[Tensor, "B T V"],
        canvas: Int[Tensor, "B T"],
        generators: Sequence[torch.Generator],
        done: Bool[Tensor, " B"],
    ) -> Int[Tensor, "B T"]:
        """One candidate for each position of the rows that are not done."""
        drawn = canvas.clone()
        for row, generator in enumerate(generators):
            if not bool(done[row]):
                odds = logits[row].softmax(dim=-1, dtype=torch.float32).cpu()
                drawn[row] = torch.multinomial(odds, 1, generator=generator)[:, 0].to(canvas)
        return drawn


def until_end(ids: Int[Tensor, " A"], stops: Sequence[Sequence[int]]) -> Int[Tensor, " _"]:
    """The answer before the first of the stop sequences."""
    found = [at for stop in stops if (at := _first(ids.tolist(), stop)) is not None]
    return ids[: min(found, default=len(ids))]


def _first(ids: Sequence[int], stop: Sequence[int]) -> int | None:
    width = len(stop)
    places = range(len(ids) - width + 1)
    return next((at for at in places if width and list(ids[at : at + width]) == list(stop)), None)
