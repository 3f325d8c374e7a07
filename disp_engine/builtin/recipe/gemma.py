"""The block-diffusion checkpoint: text model and projector by the family's own objective.

It shares world and lessons with the masked ones. As there, commands also stand inside the visual
span, and visual tokens are hidden at random: in each of the three ways that the family knows,
equally often, so that none of them is favoured when they are compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import (
    DiffusionGemmaForBlockDiffusion,
)

from disp_engine.builtin.recipe.device import training_device
from disp_engine.builtin.recipe.gemma_layout import (
    CANVAS,
    Chat,
    build_chat,
    write_configs,
    write_weights,
)
from disp_engine.builtin.recipe.gemma_tower import PatchTower
from disp_engine.builtin.recipe.language import cached_features
from disp_engine.builtin.recipe.lessons import Teacher
from disp_engine.builtin.recipe.pictures import GRID, draw_pictures
from disp_engine.builtin.recipe.tower import TowerRecipe, learning_rate
from disp_engine.builtin.world import SIZE, Scene
from disp_engine.models.diffusion_gemma import DiffusionGemma, GemmaSettings
from disp_engine.models.diffusion_gemma.backbone import Backbone
from disp_engine.models.diffusion_gemma.canvas import Lesson, Noise, cut
from disp_engine.models.diffusion_gemma.config import GemmaFolder
from disp_engine.models.diffusion_gemma.hiding import Hiding
from disp_engine.records import IGNORE, IMAGE_TOKEN, Embedded, Tokens, VisualFeatures

NAME = "disp-tiny-diffusion-gemma"
HIDINGS: tuple[Hiding, ...] = get_args(Hiding)

Save = Callable[[nn.Module, torch.optim.Optimizer, int], None]
Restore = Callable[[nn.Module, torch.optim.Optimizer], int]


@dataclass(frozen=True)
class GemmaRecipe:
    """Settings of the training.

    `visual_penalty`: weight of the visual tokens' mean squared norm in units of the words': as in
    the masked recipe it keeps both at one scale.
    """

    steps: int = 1600
    batch: int = 32
    learning_rate: float = 8e-4
    scenes: int = 24_000
    stickers: float = 0.2
    visual_penalty: float = 2.5e-3
    save_every: int = 250
    seed: int = 4


class CanvasStudent(nn.Module):
    """What is trained here: the text model, shared by encoder and decoder, and the projector."""

    def __init__(self, model: DiffusionGemma) -> None:
        super().__init__()
        self.decoder = model.backbone.model.model.decoder
        self.projector = model.projector
        self.requires_grad_(True)


class CanvasTeacher(Teacher[Chat]):
    """Draws lessons as the family embeds them; prompts keep the line break after the picture."""

    bare = 0.0

    def __init__(self, model: DiffusionGemma, chat: Chat) -> None:
        super().__init__(chat, GRID * GRID)
        self.model = model

    def embedded(
        self, scene: Scene, features: Float[Tensor, "P C"], rng: np.random.Generator
    ) -> Lesson:
        """One lesson on a scene: its prompt, with hidden tokens and a command, and its answer."""
        drawn, at = self.lesson(scene, rng), self.image_at
        ids = torch.tensor([*drawn.ids[:at], IMAGE_TOKEN, *drawn.ids[at:]])
        labels = torch.tensor([*drawn.labels[:at], IGNORE, *drawn.labels[at:]])
        picture = VisualFeatures(features[None], (SIZE, SIZE))
        example = self.model.embed(Tokens(ids, labels), [picture])
        lesson = cut(example, CANVAS, torch.Generator().manual_seed(int(rng.integers(2**31))))
        return replace(lesson, prefix=self._told(lesson.prefix, drawn.command, rng))

    def _told(self, prompt: Embedded, command: list[int], rng: np.random.Generator) -> Embedded:
        """Hide visual tokens in one of the family's ways, then write the command over some."""
        places = self._places(len(command), rng) if command else torch.tensor([], dtype=torch.long)
        chosen = torch.zeros(self.visual_tokens, dtype=torch.bool)
        if rng.random() < self.hidden:
            share = rng.uniform(0, self.hidden_most)
            chosen = torch.from_numpy(rng.random(self.visual_tokens) < share)
        chosen[places] = False
        way = HIDINGS[int(rng.integers(len(HIDINGS)))]
        self.model.settings = GemmaSettings(hiding=way, seed=int(rng.integers(2**31)))
        shown = self.model.hide(prompt, chosen)
        embeddings = shown.embeddings.clone()
        ids = torch.tensor(command, dtype=torch.long).to(self.model.device)
        said = self.model.backbone.token_embeddings(ids)
        embeddings[shown.spans[0][0] + places] = said
        return replace(shown, embeddings=embeddings)


def facts(tower: TowerRecipe, recipe: GemmaRecipe) -> dict[str, Any]:
    """What the card says of the checkpoint."""
    return {
        "family": "diffusion_gemma",
        "description": "Tiny DiffusionGemma trained from scratch on coloured shapes (experimental)",
        "recipe": {"tower": asdict(tower), "language": asdict(recipe)},
    }


def write(
    folder: Path, tower: PatchTower, recipe: GemmaRecipe, save: Save, restore: Restore
) -> None:
    """Train from scratch, or from where `restore` goes on, and write the checkpoint."""
    chat = build_chat()
    write_configs(folder, chat.tokenizer)
    model = untrained(folder, tower, chat, recipe.seed)
    train(model, chat, tower, recipe, save, restore)
    write_weights(folder, model)


def untrained(folder: Path, tower: PatchTower, chat: Chat, seed: int) -> DiffusionGemma:
    """The adapter over a new model of the folder's sizes that sees with `tower`."""
    torch.manual_seed(seed)
    described = GemmaFolder.read(folder)
    whole: Any = DiffusionGemmaForBlockDiffusion(described.config)
    whole.model.encoder.vision_tower.load_state_dict(tower.vision.state_dict())
    return DiffusionGemma(described, Backbone(whole), chat, "untrained", GemmaSettings())


def train(
    model: DiffusionGemma,
    chat: Chat,
    tower: PatchTower,
    recipe: GemmaRecipe,
    save: Save,
    restore: Restore,
) -> None:
    """Train text model and projector in place; prints the loss."""
    pictures = draw_pictures(recipe.scenes, np.random.default_rng(recipe.seed), recipe.stickers)
    device = training_device()
    model.backbone.model.to(device)
    features = cached_features(tower.to(device), pictures.pixels)
    teacher, student = CanvasTeacher(model, chat), CanvasStudent(model)
    optimizer = torch.optim.AdamW(
        student.parameters(), recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    for parameter in student.parameters():  # a batch without a guess leaves some without gradient
        parameter.grad = torch.zeros_like(parameter)
    for step in range(restore(student, optimizer), recipe.steps):
        rng = np.random.default_rng([recipe.seed, step])
        rows = rng.integers(len(pictures.scenes), size=recipe.batch)
        lessons = [teacher.embedded(pictures.scenes[r], features[r].float(), rng) for r in rows]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.learning_rate)
        shown = features[torch.from_numpy(rows).to(device)].float()
        loss = lesson_loss(model, lessons, shown, recipe, step)
        optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == recipe.steps - 1:
            print(f"gemma step {step} loss {loss.item():.4f}", flush=True)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            save(student, optimizer, step + 1)
    model.backbone.model.cpu()


def lesson_loss(
    model: DiffusionGemma,
    lessons: Sequence[Lesson],
    features: Float[Tensor, "B P C"],
    recipe: GemmaRecipe,
    step: int,
) -> Float[Tensor, ""]:
    """The family's objective, plus the penalty on loud visual tokens."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    words = model.backbone.token_embeddings(
        torch.arange(len(model.backbone.embedding)).to(model.device)
    )
    noise = Noise.draw((len(lessons), CANVAS), len(words), generator)
    loudness = (
        model.project(features.flatten(0, 1)).square().mean() / words.detach().square().mean()
    )
    return model.training_loss(lessons, noise) + recipe.visual_penalty * loudness
