"""What a detector is, and what it may look at."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine.interfaces import AttendingModel, Generation, VisualModel
from disp_engine.records import Embedded, Sample
from disp_engine.saliency.estimator import Saliency
from disp_engine.training.examples import FeatureCache
from disp_engine.training.projector import restore, snapshot

AT_ONCE = 4
"""Prompts whose attention rows or logits are in memory at a time."""
Need = Literal["saliency", "rewritten", "attention", "base"]


@dataclass(frozen=True)
class Evidence:
    """A micro-batch of samples and what a run knows of them; only first turns are looked at.

    `saliency` are the scores of the visual tokens, `rewritten` the responses given under the mask
    (None for a sample that has none), `base` the weights of the projector before it was tuned.
    """

    model: VisualModel
    cache: FeatureCache
    samples: Sequence[Sample]
    generation: Generation
    seed: int
    mask_ratio: float = 0.0
    saliency: Sequence[Saliency] | None = None
    rewritten: Sequence[str | None] | None = None
    base: Mapping[str, Tensor] | None = None

    def has(self, need: Need) -> bool:
        """Whether a detector that needs this can be asked."""
        if need == "attention":
            return isinstance(self.model, AttendingModel)
        return getattr(self, need) is not None

    @property
    def rows(self) -> int:
        """Rows of the first block of a response."""
        return min(self.generation.block_length, self.generation.length)

    @cached_property
    def prompts(self) -> list[Embedded]:
        """The first prompts, as the compromised model reads them."""
        return self.embed()

    @torch.no_grad()
    def embed(self) -> list[Embedded]:
        """The first prompts, as the model as it now is reads them."""
        found = []
        for sample in self.samples:
            first = sample.turns[:1]
            tokens = self.model.tokenise_prompt(first)
            found.append(self.model.embed(tokens, self.cache.of(sample, first)))
        return found

    def original_ids(self) -> list[Int[Tensor, " T"]]:
        """The given first responses, in tokens."""
        return [self.model.tokenise_response(sample.turns[1].text) for sample in self.samples]

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """The model with its base projector; the tuned one is back afterwards."""
        tuned = snapshot(self.model)
        restore(self.model, self.base or tuned)
        try:
            yield
        finally:
            restore(self.model, tuned)


@runtime_checkable
class Detector(Protocol):
    """One way to tell poisoned samples from clean ones.

    One that `decides` scores in nats of surprise, and an excess on that scale is poison. Honest
    samples of another kind lie apart on any other scale, so there a detector only ranks and
    explains.
    """

    needs: ClassVar[frozenset[Need]]
    decides: ClassVar[bool]

    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B M"]:
        """What it takes from each sample; nan where a sample has nothing to measure."""
        ...

    def score(self, measured: Float[np.ndarray, "S M"]) -> Float[np.ndarray, " S"]:
        """How suspicious each of all samples is; nan where it cannot be told."""
        ...
