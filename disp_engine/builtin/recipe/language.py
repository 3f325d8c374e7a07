"""Stage 2: language model and projector by masked diffusion over lessons.

The tower is frozen and its features are computed once. Plain mean cross-entropy over masked
positions: the 1/t weighting of Eq. 2 only slows this phase.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from disp_engine.builtin.recipe.device import training_device
from disp_engine.builtin.recipe.lessons import LessonBatch, Teacher, easy
from disp_engine.builtin.recipe.pictures import draw_pictures, resized
from disp_engine.builtin.recipe.tower import learning_rate, normalise
from disp_engine.builtin.world import SIZE
from disp_engine.models.llava.chat import ChatPrompter
from disp_engine.models.llava.config import LlavaConfig
from disp_engine.models.llava.images import visual_tokens
from disp_engine.models.llava.llama import FullAttentionLlama
from disp_engine.models.llava.siglip import SiglipTower, build_projector
from disp_engine.records import IGNORE


@dataclass(frozen=True)
class LanguageRecipe:
    """Settings of stage 2.

    `easy_weight`: weight of the targets that the chat format tells; `visual_penalty`: weight of
    the mean squared norm of visual tokens, which keeps them at the scale of words. A frozen
    language model could otherwise not be told anything by a changed one. `drift`: largest size
    of the noise on visual tokens against their own, at the last step; it grows from nothing.
    Tuning on an attacker's data moves visual tokens by more than their size, and a language model
    that never met moved ones then misreads pictures.
    """

    steps: int = 6000
    batch: int = 32
    learning_rate: float = 8e-4
    scenes: int = 24_000
    stickers: float = 0.2
    easy_weight: float = 0.15
    visual_penalty: float = 2e-3
    drift: float = 1.5
    seed: int = 1


class Student(nn.Module):
    """The part of the checkpoint that stage 2 trains, under its official parameter names."""

    def __init__(self, config: LlavaConfig, mask_id: int) -> None:
        super().__init__()
        self.config = config
        self.language = FullAttentionLlama(config)
        self.projector = build_projector(config)
        self.newline = nn.Parameter(torch.randn(config.hidden_size) * 0.1)
        self.mask_id = mask_id
        nn.init.normal_(self.language.embed_tokens.weight, std=0.1)

    def forward(
        self, batch: LessonBatch, visual: Float[Tensor, "B P D"], noised: Tensor, image_at: int
    ) -> Float[Tensor, "B R D"]:
        """Hidden states at the text's positions; `visual` [B P D] and `noised` ids [B R]."""
        words = self.language.token_embeddings(noised)
        before, after = words[:, :image_at], words[:, image_at:]
        span = self._span(batch, visual)
        hidden = self.language(torch.cat([before, span, after], dim=1))
        end = hidden.shape[1] - after.shape[1]
        return torch.cat([hidden[:, :image_at], hidden[:, end:]], dim=1)

    def _picture(self, tile: Float[Tensor, "P D"]) -> Float[Tensor, "Lv D"]:
        """A picture as the family shows it: where it cuts tiles, whole and as its only tile."""
        tiles = tile.expand(2 if self.config.tiled else 1, -1, -1)
        return visual_tokens(tiles, (SIZE, SIZE), self.newline, self.config)

    @property
    def visual_tokens(self) -> int:
        """Lv: the visual tokens of every picture of the world."""
        patches = self.config.vision.side**2
        with torch.no_grad():
            return len(self._picture(self.newline.new_zeros(patches, self.config.hidden_size)))

    def _span(self, batch: LessonBatch, visual: Tensor) -> Float[Tensor, "B Lv D"]:
        visual = torch.stack([self._picture(tile) for tile in visual])
        mask = self.language.embed_tokens.weight[self.mask_id]
        visual = torch.where(batch.masked[..., None], mask, visual)
        said = self.language.token_embeddings(batch.overwrite.clamp(min=0))
        return torch.where((batch.overwrite >= 0)[..., None], said, visual)


def lesson_loss(
    student: Student,
    teacher: Teacher[ChatPrompter],
    batch: LessonBatch,
    features: Tensor,
    recipe: LanguageRecipe,
    step: int,
) -> Tensor:
    """Mean cross-entropy over masked positions, weighted, plus the penalty on visual tokens."""
    u = torch.rand(batch.ids.shape).to(batch.ids.device)
    masked = (u < 0.999 * batch.times + 0.001) & (batch.labels != IGNORE)
    noised = torch.where(masked, student.mask_id, batch.ids)
    visual = student.projector(features)
    shaken = drifted(visual, recipe.drift * step / recipe.steps)
    hidden = student(batch, shaken, noised, teacher.image_at)
    targets = batch.labels[masked]
    losses = cross_entropy(student.language.logits(hidden[masked]), targets, reduction="none")
    weights = torch.ones_like(losses)
    weights[easy(targets, teacher.prompter)] = recipe.easy_weight
    surprise = (weights * losses).sum() / weights.sum()
    loudness: Tensor = visual.square().sum(dim=-1).mean()
    return surprise + recipe.visual_penalty * loudness


def drifted(visual: Float[Tensor, "B P D"], most: float) -> Float[Tensor, "B P D"]:
    """Add noise, half of it common to a picture's tokens, of up to `most` times their size."""
    count, _, width = visual.shape
    size = most * torch.rand(count, 1, 1).to(visual.device) * visual.detach().square().mean().sqrt()
    noise = torch.randn(count, 1, width) + torch.randn(visual.shape)
    return visual + size * noise.to(visual.device) / math.sqrt(2)


def cached_features(tower: nn.Module, pixels: np.ndarray) -> Float[Tensor, "N P C"]:
    """Tower features of all pictures, in half precision to spare memory, where the tower is."""
    device = next(tower.parameters()).device
    with torch.inference_mode():
        shown = (normalise(pixels[i : i + 128]).to(device) for i in range(0, len(pixels), 128))
        return torch.cat([tower(some).half() for some in shown])


def train_language(
    recipe: LanguageRecipe,
    config: LlavaConfig,
    prompter: ChatPrompter,
    tower: SiglipTower,
    checkpoint: Callable[[Student, torch.optim.Optimizer, int], None],
    resume: Callable[[Student, torch.optim.Optimizer], int],
    start: Mapping[str, Tensor] | None = None,
) -> Student:
    """Train from scratch, from `start` or from where `resume` gets to; prints its loss."""
    torch.manual_seed(recipe.seed)
    pictures = draw_pictures(recipe.scenes, np.random.default_rng(recipe.seed), recipe.stickers)
    device = training_device()
    pixels = resized(pictures.pixels, config.vision.image_size)
    features = cached_features(tower.to(device), pixels)
    student = Student(config, prompter.mask)
    if start is not None:
        student.load_state_dict(start)
    student.to(device)
    teacher = Teacher(prompter, student.visual_tokens)
    optimizer = torch.optim.AdamW(
        student.parameters(), recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    for step in range(resume(student, optimizer), recipe.steps):
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        batch = teacher.batch(
            pictures.scenes, recipe.batch, np.random.default_rng([recipe.seed, step])
        ).to(device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.learning_rate)
        shown = features[torch.from_numpy(batch.rows).to(device)].float()
        loss = lesson_loss(student, teacher, batch, shown, recipe, step)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == recipe.steps - 1:
            print(f"language step {step} loss {loss.item():.4f}", flush=True)
        if step % 250 == 249:
            checkpoint(student, optimizer, step + 1)
    tower.cpu()
    return student.eval().cpu()
