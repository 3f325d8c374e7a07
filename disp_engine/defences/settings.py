"""Settings of the defences: what the request gives, else the model card, else the paper."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import Generation, KeyValueCache
from disp_engine.saliency.estimator import SaliencySettings
from disp_engine.saliency.probes import PROBES, Estimator
from disp_engine.saliency.scores import SCORES, Score
from disp_engine.training.settings import FineTuning

Auto = Literal["auto"]
T = TypeVar("T", bound="DefenceSettings")


@dataclass(frozen=True)
class DefenceSettings:
    """What every defence can be told, with the paper's defaults for LLaDA-V.

    `start` is the projector from which the second tuning goes on: the compromised one, or the base
    projector. From the base it is tuned as the first time; from the compromised one for
    `retrain_share` of the epochs (a tenth: appendix B.2) at `retrain_learning_rate`, None for the
    same rate. `retrain_epochs` overrides either number of epochs. `generation_length` auto is the
    fewest blocks that hold the 95th percentile of the data's own responses; `steps` auto is one
    token a step; `micro_batch` bounds what is run at once, and with `fit_memory` one sample is
    measured and as many are run as fit below that bound. `kv_cache` and `parallel_threshold` are
    shortcuts of the generation (`Generation`), each taken only where the gate lets it through.
    """

    start: Literal["compromised", "base"] = "compromised"
    epochs: float = 20
    retrain_share: float = 0.1
    retrain_epochs: float | None = None
    learning_rate: float = 1e-4
    retrain_learning_rate: float | None = None
    batch_size: int = 32
    micro_batch: int = 32
    fit_memory: bool = False
    warmup_ratio: float = 0.03
    max_grad_norm: float = 1.0
    generation_length: int | Auto = "auto"
    block_length: int = 32
    steps: int | Auto = "auto"
    kv_cache: KeyValueCache = "none"
    parallel_threshold: float | None = None

    @classmethod
    def resolve(cls: type[T], *layers: Mapping[str, Any]) -> T:
        """Lay settings over one another, the last on top; None leaves what lies below.

        The last layer is the request's and may hold only what this defence knows; those below
        hold defaults for several defences.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(layers[-1]) - known):
            raise InvalidRequestError(f"hyperparameters: unknown: {', '.join(unknown)}.")
        merged: dict[str, Any] = {}
        for layer in layers:
            merged |= {k: v for k, v in layer.items() if k in known and v is not None}
        settings = cls(**merged)
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        if self.start not in ("compromised", "base"):
            raise InvalidRequestError("hyperparameters: start is compromised, base.")
        self._check_positive(
            "epochs", "retrain_share", "retrain_epochs", "learning_rate", "retrain_learning_rate",
            "batch_size", "micro_batch", "max_grad_norm", "block_length", "generation_length",
            "steps", "parallel_threshold",
        )  # fmt: skip
        if self.kv_cache not in get_args(KeyValueCache):
            raise InvalidRequestError("hyperparameters: kv_cache is none, prefix or dual.")
        if self.generation_length != "auto" and self.generation_length % self.block_length:
            raise InvalidRequestError(
                "hyperparameters: generation_length must be a multiple of block_length."
            )

    def fine_tuning(self) -> FineTuning:
        """The first tuning, on the data as they came."""
        return FineTuning(
            self.epochs,
            self.learning_rate,
            self.batch_size,
            self.micro_batch,
            self.warmup_ratio,
            self.max_grad_norm,
        )

    def retraining(self) -> FineTuning:
        """The second tuning, shorter and gentler from where the first one ended."""
        epochs, rate = self.epochs, self.learning_rate
        if self.start == "compromised":
            epochs, rate = epochs * self.retrain_share, self.retrain_learning_rate or rate
        return replace(self.fine_tuning(), epochs=self.retrain_epochs or epochs, learning_rate=rate)

    def generation(self, response_lengths: Sequence[int]) -> Generation:
        """How responses are denoised, given the lengths in tokens of the data's own."""
        length = self.generation_length
        if length == "auto":
            needed = float(np.percentile(response_lengths, 95)) if response_lengths else 1
            length = max(1, math.ceil(needed / self.block_length)) * self.block_length
        steps = None if self.steps == "auto" else self.steps
        blocks = length // self.block_length
        if steps is not None and steps % blocks:
            raise InvalidRequestError(
                f"hyperparameters: steps must be a multiple of the {blocks} blocks of a response "
                f"of {length} tokens."
            )
        return Generation(
            length=length,
            block_length=self.block_length,
            steps=steps,
            kv_cache=self.kv_cache,
            parallel_threshold=self.parallel_threshold,
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as the report holds them."""
        return asdict(self)

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value not in (None, "auto") and value <= 0:
                raise InvalidRequestError(f"hyperparameters: {name} must be positive.")


@dataclass(frozen=True)
class DispSettings(DefenceSettings):
    """Every knob of Algorithm 1, with the paper's defaults for LLaDA-V.

    `estimator` gaussian draws the paper's probes; eigen and orthogonal have less variance at the
    same price, the latter the least.
    `score` path scores tokens while the picture fades, sufficiency each token alone (Lv + 2 forward
    passes of a prompt): for triggers that hide one another.
    `text_mask_ratio` also hides that share of the text tokens, at random (the authors' code has 0).
    `rewrite_above` None rewrites all samples, as the paper does; a number those whose suspicion is
    higher, in nats; auto those that the verdict flags, which is none in clean data.
    """

    mask_ratio: float = 0.3
    text_mask_ratio: float = 0.0
    probes: int = 6
    top_logits: int = 5
    estimator: Estimator = "orthogonal"
    score: Score = "paper"
    masking: Literal["saliency", "random", "none"] = "saliency"
    rewrite_above: float | Auto | None = None

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        for name in ("mask_ratio", "text_mask_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidRequestError(f"hyperparameters: {name} must lie in [0, 1].")
        if self.masking not in ("saliency", "random", "none"):
            raise InvalidRequestError("hyperparameters: masking is saliency, random or none.")
        if self.estimator not in PROBES:
            raise InvalidRequestError(f"hyperparameters: estimator is {', '.join(PROBES)}.")
        if self.score not in SCORES:
            raise InvalidRequestError(f"hyperparameters: score is {', '.join(SCORES)}.")
        if self.rewrite_above is not None and self.masking == "none":
            raise InvalidRequestError("hyperparameters: rewrite_above needs a masking.")
        self._check_positive("probes")
        if self.top_logits < 2:
            raise InvalidRequestError("hyperparameters: top_logits must be at least 2.")

    def saliency(self, generation: Generation, seed: int) -> SaliencySettings:
        """The estimator's settings: the rows of the first block."""
        rows = min(generation.block_length, generation.length)
        return SaliencySettings(
            self.probes, self.top_logits, rows, generation.length, seed, self.estimator, self.score
        )
