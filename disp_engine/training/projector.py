"""Tunes a model's projector on samples, alone or with LoRA, in a stage of its own."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from disp_engine.context import RunContext
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import (
    AutoregressiveModel,
    BatchingModel,
    DiffusionModel,
    VisualModel,
)
from disp_engine.records import Embedded, Sample, Tokens, VisualFeatures
from disp_engine.stages import Stage, StageFolder
from disp_engine.training.examples import FeatureCache
from disp_engine.training.lora import Adapted
from disp_engine.training.ranks import Ranks
from disp_engine.training.settings import FineTuning
from disp_engine.training.state import restore_parameters
from disp_engine.training.trainer import fine_tune

Batch = Callable[[], list[Embedded]]
"""Embeds the samples of a micro-batch with the projector as it is when called."""


@runtime_checkable
class Objective(Protocol):
    """A training loss other than the family's own."""

    def loss(
        self,
        model: VisualModel,
        batch: Batch,
        samples: Sequence[Sample],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """The loss of a micro-batch of `samples`, noised by draws from `generator`."""
        ...

    def to_json(self) -> dict[str, Any]:
        """All that determines the loss."""
        ...


def projector_sha256(projector: nn.Module) -> str:
    """sha256 over the projector's parameters, names included."""
    found = hashlib.sha256()
    for name, parameter in sorted(projector.named_parameters()):
        found.update(name.encode())
        found.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def snapshot(model: VisualModel) -> dict[str, Tensor]:
    """A copy of the projector's weights."""
    return {name: p.detach().clone() for name, p in model.projector.named_parameters()}


@torch.no_grad()
def restore(model: VisualModel, weights: Mapping[str, Tensor]) -> None:
    """Put a snapshot back."""
    for name, parameter in model.projector.named_parameters():
        parameter.copy_(weights[name])


def tune_projector(
    model: VisualModel,
    samples: Sequence[Sample],
    cache: FeatureCache,
    settings: FineTuning,
    seed: int,
    stage: Stage,
    context: RunContext,
    objective: Objective | None = None,
    ranks: Ranks | None = None,
    adapted: Adapted | None = None,
) -> None:
    """Leave the model with the tuned projector; a finished stage is only read back.

    `ranks` do it together where there are some, by the family's own objective only. Where the model
    is `adapted`, its adapters are tuned too.
    """
    if stage.complete:
        restore_parameters(stage, adapted or model.projector)
        return
    alone = objective is not None or adapted is not None
    if ranks is not None and not alone and ranks.wanted(settings) > 1:
        ranks.tune(model.projector, samples, settings, seed, stage, context)
        restore_parameters(stage, model.projector)
    else:
        tune_samples(model, samples, cache, settings, seed, stage, context, objective, adapted)
    stage.finish()


def tune_samples(
    model: VisualModel,
    samples: Sequence[Sample],
    cache: FeatureCache,
    settings: FineTuning,
    seed: int,
    stage: StageFolder,
    context: RunContext,
    objective: Objective | None = None,
    adapted: Adapted | None = None,
) -> None:
    """Tune in this process, alone or as one of several; the state is kept in `stage`."""
    tokens = [model.tokenise_example(sample.turns) for sample in samples]

    def loss_of(indices: Int[Tensor, " B"], generator: torch.Generator) -> Float[Tensor, ""]:
        chosen = indices.tolist()

        def batch() -> list[Embedded]:
            features = [cache.of(samples[i], samples[i].turns) for i in chosen]
            return embed_all(model, [tokens[i] for i in chosen], features)

        if objective is None:
            return own_loss(model, batch(), generator)
        return objective.loss(model, batch, [samples[i] for i in chosen], generator)

    trained = adapted or model.projector
    fine_tune(trained, loss_of, len(samples), settings, seed, stage, context)


def embed_all(
    model: VisualModel, tokens: Sequence[Tokens], features: Sequence[Sequence[VisualFeatures]]
) -> list[Embedded]:
    """Embed each text with its pictures, in one pass of the projector where the model can."""
    if isinstance(model, BatchingModel):
        return model.embed_all(tokens, features)
    return [model.embed(*pair) for pair in zip(tokens, features, strict=True)]


def own_loss(
    model: VisualModel, batch: Sequence[Embedded], generator: torch.Generator
) -> Float[Tensor, ""]:
    """The objective that the model was published with; only diffusion draws noise for it."""
    if isinstance(model, AutoregressiveModel):
        return model.next_token_loss(batch)
    if isinstance(model, DiffusionModel):
        return model.noised_loss(batch, generator)
    raise InvalidRequestError("model: it has no objective to be tuned by.")


def tuning_inputs(
    model: VisualModel, data_sha256: str, settings: FineTuning, seed: int
) -> dict[str, Any]:
    """All that determines the tuned projector, the model's present projector included."""
    return {
        "model": model.revision,
        "device": model.device.type,
        "start": projector_sha256(model.projector),
        "data": data_sha256,
        "settings": vars(settings),
        "seed": seed,
    }
