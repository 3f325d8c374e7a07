"""What is measured: a pair of models, inputs for both, and each stage by the one and the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
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

LENGTH, PROBES = 32, 6
"""Tokens of a response, and m: those of the authors' code."""


@dataclass(frozen=True)
class Sizes:
    """Of a sample: pictures, pixels of their sides, and tokens of its question and its answer."""

    pictures: int = 1
    side: int = 224
    text: int = 60
    answer: int = 64


PAPER = Sizes()
"""A sample of CC-SBU, whose pictures are downloaded at 224 pixels."""


@dataclass(frozen=True)
class Subject:
    """A pair of models and inputs of one length for both."""

    pair: Pair
    prompts: Sequence[Embedded]
    examples: Sequence[tuple[Tokens, Sequence[VisualFeatures]]]
    encode_s: float

    @classmethod
    @torch.no_grad()
    def of(cls, pair: Pair, count: int, sizes: Sizes = PAPER) -> "Subject":
        """Draw `count` prompts with their answers."""
        rng, model = np.random.default_rng(0), pair.model
        shape = (sizes.side, sizes.side, 3)
        pictures = [
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
            for _ in range(count * sizes.pictures)
        ]
        model.encode_images(pictures[:1])
        took, features = timed(lambda: model.encode_images(pictures), model.device)
        prompts, examples = [], []
        for number in range(count):
            shown = features[number * sizes.pictures : (number + 1) * sizes.pictures]
            drawn = torch.from_numpy(
                rng.integers(0, model.config.vocab_size, sizes.text + sizes.answer)
            )
            question, answer = drawn[: sizes.text], drawn[sizes.text :]
            half, images = sizes.text // 2, torch.full((sizes.pictures,), IMAGE_TOKEN)
            asked = torch.cat([question[:half], images, question[half:]])
            labels = torch.cat([torch.full_like(asked, IGNORE), answer])
            prompts.append(model.embed(Tokens(asked), shown))
            examples.append((Tokens(torch.cat([asked, answer]), labels), shown))
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

    @property
    def rows(self) -> Int[Tensor, "1 T"]:
        """Where the response stands."""
        prompt = len(self.prompts[0].embeddings)
        return torch.arange(prompt, prompt + LENGTH, device=self.device)[None]

    @property
    def masked(self) -> Float[Tensor, "1 L D"]:
        """The first prompt with a masked response, E_0."""
        prompt = self.prompts[0].embeddings
        return torch.cat([prompt, self.e_mask.expand(LENGTH, -1)])[None]

    def forward(self) -> Tensor:
        """The engine's logits of a masked response."""
        with torch.no_grad():
            return self.pair.model.logits(self.masked, self.rows)

    def generate(self, number: int, steps: int, *, prefix: bool = False) -> Tensor:
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
            prefix=prefix,
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
        asked = SaliencySettings(**{"rows": LENGTH, "length": LENGTH, "probes": PROBES, **settings})
        return estimate_saliency(self.pair.model, prompts, asked)

    def literal_gradient(self, number: int, seed: int) -> Tensor:
        """The projector's gradient by a checkpointed step over all rows' logits."""
        reference = replace(self.pair.reference, checkpointed=True)
        example = self.pair.model.embed(*self.examples[number])
        assert example.labels is not None
        generator = torch.Generator().manual_seed(seed)
        loss = eq_2.loss(reference, example.embeddings, example.labels, self.e_mask, generator)
        return self._gradient(loss)

    def gradient(self, numbers: Sequence[int], seed: int) -> Tensor:
        """The projector's gradient by the engine, a mean over some examples."""
        chosen = (self.examples[number] for number in numbers)
        batch = self.pair.model.embed_all(*zip(*chosen, strict=True))
        generator = torch.Generator().manual_seed(seed)
        return self._gradient(self.pair.model.noised_loss(batch, generator))

    def _gradient(self, loss: Tensor) -> Tensor:
        parameters = list(self.pair.model.projector.parameters())
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
