"""The checkpoints that the recipe makes, in order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from disp_engine.builtin.recipe.language import LanguageRecipe
from disp_engine.models.lavida.config import LavidaConfig
from disp_engine.models.lavida.prompt import Prompter as LavidaPrompter
from disp_engine.models.llada_v.config import LladaVConfig
from disp_engine.models.llada_v.prompt import Prompter as LladaVPrompter
from disp_engine.models.llava.chat import ChatPrompter
from disp_engine.models.llava.config import LlavaConfig

DEFAULTS = {
    "learning_rate": 1e-3,
    "retrain_learning_rate": 5e-4,
    "retrain_share": 0.4,
    "max_grad_norm": 0.05,
}
"""Hyperparameters that differ from the paper's, which are set for a far larger projector.

Gradients of data that the model knows have a norm of 0.03 in the median and of 2 at times (Eq. 2's
weight 1/p is large where hardly anything is masked): unclipped, one such step undoes many.
"""


@dataclass(frozen=True)
class Plan:
    """One checkpoint, and the one whose language model and projector it goes on from."""

    name: str
    family: str
    description: str
    config: type[LlavaConfig]
    prompter: type[ChatPrompter]
    language: LanguageRecipe
    defaults: Mapping[str, Any] = field(default_factory=lambda: DEFAULTS)
    starts_from: str | None = None


PLANS = (
    Plan(
        "disp-tiny-llada-v",
        "llada_v",
        "Tiny LLaDA-V trained from scratch on coloured shapes, for demonstration",
        LladaVConfig,
        LladaVPrompter,
        LanguageRecipe(),
        DEFAULTS | {"learning_rate": 1.5e-3, "mask_ratio": 0.07, "score": "path"},
    ),
    Plan(
        "disp-tiny-lavida",
        "lavida",
        "Tiny LaViDa: the tiny LLaDA-V taught pooled pictures and this family's labels",
        LavidaConfig,
        LavidaPrompter,
        LanguageRecipe(steps=4000, learning_rate=5e-4, seed=2),
        DEFAULTS | {"mask_ratio": 0.1, "score": "path"},
        starts_from="disp-tiny-llada-v",
    ),
)
