"""What is measured: a pair of models, inputs for both, and each stage by the one and the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.reference import generation as official
from benchmarks.reference import saliency as algorithm_1
from benchmarks.reference import training as eq_2
from benchmarks.shapes import Pair
from benchmarks.timing import timed
from disp_engine.interfaces import Generation
from disp_engine.records import IGNORE, IMAGE_TOKEN, Embedded, Tokens, VisualFeatures
from disp_engine.saliency.estimator import Saliency, SaliencySettings, estimate_saliency

TEXT, ANSWER, LENGTH, PROBES = 60, 64, 32, 6
PICTURE = 224
"""Pixels of a side, as CC-SBU's are downloaded."""


@dataclass(frozen=True)
class Subject:
    """A pair of models and inputs of one length for both."""

    pair: Pair
    prompts: Sequence[Embedded]
    examples: Sequence[tuple[Tokens, VisualFeatures]]
    encode_s: float

    @classmethod
    @torch.no_grad()
    def of(cls, pair: Pair, count: int) -> "Subject":
        """Draw `count` pictures, questions of TEXT tokens and answers of ANSWER tokens."""
        rng = np.random.default_rng(0)
        shape = (PICTURE, PICTURE, 3)
        pictures = [
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)
        ]
        model = pair.model
        model.encode_images(pictures[:1])
        took, features = timed(lambda: model.encode_images(pictures), model.device)
        prompts, examples = [], []
        for feature in features:
            drawn = torch.from_numpy(rng.integers(0, model.config.vocab_size, TEXT + ANSWER))
            image = torch.tensor([IMAGE_TOKEN])
            ids = torch.cat([drawn[: TEXT // 2], image, drawn[TEXT // 2 :]])
            labels = torch.where(torch.arange(len(ids)) > TEXT, ids, IGNORE)
            prompts.append(model.embed(Tokens(ids[: TEXT + 1]), [feature]))
            examples.append((Tokens(ids, labels), feature))
        return cls(pair, prompts, examples, took / count)

    @property
    def device(self) -> torch.device:
        """Where the models stand."""
        return self.pair.model.device

    @property
    def e_mask(self) -> Tensor:
        """The mask's embedding."""
        return self.pair.model.mask_embedding.detach()

    @property
    def positions(self) -> int:
        """Positions of a prompt with its response."""
        return len(self.prompts[0].embeddings) + LENGTH

    def generate(self, number: int, steps: int) -> Tensor:
        """The official loop on one prompt."""
        prompter = self.pair.model.prompter
        return official.generate(
            self.pair.reference,
            self.prompts[number].embeddings,
            mask=prompter.mask,
            suppressed=prompter.suppressed,
            length=LENGTH,
            block=LENGTH,
            steps=steps,
        )

    def denoise(self, numbers: Sequence[int], steps: int) -> list[Tensor]:
        """The engine on some prompts at once."""
        asked = Generation(LENGTH, LENGTH, steps, stop=())
        return self.pair.model.denoise([self.prompts[number] for number in numbers], asked)

    def literal_scores(self, number: int) -> Tensor:
        """Algorithm 1 on one prompt."""
        prompt = self.prompts[number]
        return algorithm_1.scores(
            self.pair.reference,
            prompt.embeddings,
            prompt.visual(),
            self.e_mask,
            rows=LENGTH,
            probes=PROBES,
            kept=5,
            seed=0,
        )

    def scores(self, numbers: Sequence[int], **settings: Any) -> list[Saliency]:
        """The engine's estimate on some prompts at once."""
        prompts = [self.prompts[number] for number in numbers]
        asked = SaliencySettings(probes=PROBES, rows=LENGTH, length=LENGTH, **settings)
        return estimate_saliency(self.pair.model, prompts, asked)

    def literal_gradient(self, number: int, seed: int) -> Tensor:
        """The projector's gradient by a checkpointed step over all rows' logits."""
        reference = replace(self.pair.reference, checkpointed=True)
        example = self._embedded(number)
        assert example.labels is not None
        generator = torch.Generator().manual_seed(seed)
        loss = eq_2.loss(reference, example.embeddings, example.labels, self.e_mask, generator)
        return self._gradient(loss)

    def gradient(self, numbers: Sequence[int], seed: int) -> Tensor:
        """The projector's gradient by the engine, a mean over some examples."""
        batch = [self._embedded(number) for number in numbers]
        generator = torch.Generator().manual_seed(seed)
        return self._gradient(self.pair.model.noised_loss(batch, generator))

    def _embedded(self, number: int) -> Embedded:
        tokens, feature = self.examples[number]
        return self.pair.model.embed(tokens, [feature])

    def _gradient(self, loss: Tensor) -> Tensor:
        parameters = list(self.pair.model.projector.parameters())
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
