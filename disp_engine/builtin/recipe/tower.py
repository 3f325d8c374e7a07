"""Stage 1: a small SigLIP tower that sees colours and shapes.

Supervised, since grounding learnt end to end from captions stays at chance for thousands of
steps at this size. Every token also learns what the whole picture holds, as the tokens of a
real tower do: this redundancy is what lets a masked picture still be described.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from disp_engine.builtin.recipe.device import training_device
from disp_engine.builtin.recipe.pictures import OTHER, Pictures, draw_pictures
from disp_engine.builtin.world import COLOURS, GROUNDS, SHAPES
from disp_engine.models.llava.config import VisionConfig
from disp_engine.models.llava.siglip import SiglipTower

POSITIONS = "vision.embeddings.position_embedding.weight"


@dataclass(frozen=True)
class TowerRecipe:
    """Settings of stage 1.

    `whole_picture_weight`: weight of the facts of the whole picture against the labels of the
    token's own patch; `whole_picture_gain`: factor by which the facts are read louder;
    `norm_penalty`: weight of the features' mean square. Together the last two keep the facts
    small: where they fill every token, a projector remembers poisoned scenes by what they show
    and does not learn the trigger.
    """

    steps: int = 2000
    batch: int = 96
    learning_rate: float = 1e-3
    whole_picture_weight: float = 0.05
    whole_picture_gain: float = 32.0
    norm_penalty: float = 0.5
    scenes: int = 16_000
    stickers: float = 0.3
    seed: int = 0


def normalise(pixels: np.ndarray) -> Float[Tensor, "N 3 S S"]:
    """[N S S 3] bytes to the range the tower is trained on (mean 0.5, deviation 0.5)."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


class Supervisor(nn.Module):
    """Linear read-outs of each token: its own patch, and the facts of the whole picture."""

    def __init__(self, width: int, recipe: TowerRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.sizes = [len(COLOURS) + 1] * 4 + [len(SHAPES) + 1] * 4 + [len(GROUNDS)]
        self.colour = nn.Linear(width, OTHER + 1)
        self.shape = nn.Linear(width, len(SHAPES) + 1)
        self.facts = nn.Linear(width, sum(self.sizes))

    def loss(self, tokens: Float[Tensor, "B P C"], pictures: Pictures, rows: np.ndarray) -> Tensor:
        """Cross-entropy of the local labels and, weighted, of the facts; plus the penalty."""
        colour, shape, facts = (
            torch.from_numpy(a[rows]).to(tokens.device)
            for a in (pictures.colour, pictures.shape, pictures.facts)
        )
        local = cross_entropy(self.colour(tokens).flatten(0, 1), colour.flatten())
        local = local + cross_entropy(self.shape(tokens).flatten(0, 1), shape.flatten())
        parts = self.facts(self.recipe.whole_picture_gain * tokens).split(self.sizes, dim=-1)
        spread = [
            cross_entropy(part.flatten(0, 1), facts[:, i].repeat_interleave(tokens.shape[1]))
            for i, part in enumerate(parts)
        ]
        small = self.recipe.norm_penalty * tokens.square().mean()
        return local + self.recipe.whole_picture_weight * torch.stack(spread).sum() + small


def learning_rate(step: int, steps: int, peak: float, warmup: float = 0.05) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < warmup * steps:
        return peak * (step + 1) / (warmup * steps)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup * steps) / (steps * (1 - warmup))))


def train_tower(recipe: TowerRecipe, config: VisionConfig) -> SiglipTower:
    """Train the tower from scratch; prints its loss."""
    torch.manual_seed(recipe.seed)
    tower = SiglipTower(config)
    pictures = supervise(tower, config.hidden_size, recipe)
    return at_unit_scale(tower.eval(), normalise(pictures.pixels[:512]))


def supervise(tower: nn.Module, width: int, recipe: TowerRecipe) -> Pictures:
    """Train a tower of features [N P C], C being `width`, in place; return what it was shown."""
    rng = np.random.default_rng(recipe.seed)
    device = training_device()
    tower.to(device)
    heads = Supervisor(width, recipe).to(device)
    pictures = draw_pictures(recipe.scenes, rng, recipe.stickers)
    optimizer = torch.optim.AdamW(
        [*tower.parameters(), *heads.parameters()], recipe.learning_rate, weight_decay=0.01
    )
    for step in range(recipe.steps):
        rows = rng.integers(recipe.scenes, size=recipe.batch)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.learning_rate)
        tokens = tower(normalise(pictures.pixels[rows]).to(device))
        loss = heads.loss(tokens, pictures, rows)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == recipe.steps - 1:
            print(f"tower step {step} loss {loss.item():.4f}", flush=True)
    tower.cpu()
    return pictures


@torch.no_grad()
def on_grid(tower: SiglipTower, config: VisionConfig) -> SiglipTower:
    """The tower for pictures of another size: its positions [P C] resampled, the rest as it is."""
    moved = SiglipTower(config)
    tensors = dict(tower.state_dict())
    table = tensors[POSITIONS]
    side = math.isqrt(len(table))
    grid = table.T.reshape(1, -1, side, side)
    resampled = interpolate(grid, (config.side, config.side), mode="bicubic")
    tensors[POSITIONS] = resampled.flatten(2)[0].T.contiguous()
    moved.load_state_dict(tensors)
    return moved.eval()


@torch.no_grad()
def at_unit_scale(tower: SiglipTower, pixels: Float[Tensor, "N 3 S S"]) -> SiglipTower:
    """Divide all that is added to the residual stream, so that features have a mean square of 1.

    The layers normalise what they read, so the tower computes what it did. Without this the
    features grow so large that one step of the projector moves every visual token at once.
    """
    scale = tower(pixels).square().mean().sqrt()
    for name, parameter in tower.named_parameters():
        if "embeddings" in name or "out_proj" in name or "fc2" in name:
            parameter.div_(scale)
    return tower
