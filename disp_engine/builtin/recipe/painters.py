"""Networks that know the world's pictures, for the baselines that purify pictures by one.

An unconditional diffusion model as diffusers saves it (DiffPure, ZIP, SampDetox), and a masked
autoencoder as transformers does (BDMAE). Neither has ever seen a mark that is not of the world.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers.models.vit_mae.configuration_vit_mae import ViTMAEConfig
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEForPreTraining

from disp_engine.builtin.recipe.card import HELD_OUT_SEED, hashes
from disp_engine.builtin.recipe.pictures import PATCH, draw_pictures
from disp_engine.builtin.recipe.tower import learning_rate, normalise
from disp_engine.builtin.world import SIZE

DDPM, MAE = "disp-tiny-ddpm", "disp-tiny-mae"
HELD_OUT = 512
"""Pictures on which a finished network's loss is measured."""
Save = Callable[[nn.Module, torch.optim.Optimizer, int], None]
Restore = Callable[[nn.Module, torch.optim.Optimizer], int]
Loss = Callable[[Float[Tensor, "B 3 S S"], torch.Generator], Float[Tensor, ""]]


@dataclass(frozen=True)
class PainterRecipe:
    """Settings of a training."""

    steps: int
    batch: int
    learning_rate: float = 1e-3
    scenes: int = 16_000
    save_every: int = 200
    seed: int = 4


DDPM_RECIPE = PainterRecipe(3000, 16)
"""A step of the U-Net takes four times as long as one of the autoencoder."""
MAE_RECIPE = PainterRecipe(6000, 32)


def write_ddpm(folder: Path, recipe: PainterRecipe, save: Save, restore: Restore) -> None:
    """Train a small U-Net to tell the noise in noised pictures, and write its folder."""
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    kinds: tuple[Any, Any] = (UNet2DModel, DDPMScheduler)
    torch.manual_seed(recipe.seed)
    unet = kinds[0](
        sample_size=SIZE, layers_per_block=1, block_out_channels=(16, 32, 32, 64),
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 4, up_block_types=("UpBlock2D",) * 4,
    )  # fmt: skip
    schedule = kinds[1]()
    alphas = schedule.alphas_cumprod

    def loss_of(x: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, ""]:
        noise = torch.randn(x.shape, generator=generator)
        t = torch.randint(len(alphas), (len(x),), generator=generator)
        a = alphas[t][:, None, None, None]
        return mse_loss(unet(a**0.5 * x + (1 - a) ** 0.5 * noise, t).sample, noise)

    _train(unet, loss_of, recipe, save, restore)
    unet.save_pretrained(folder / "unet")
    schedule.save_pretrained(folder / "scheduler")
    _write_card(folder, recipe, "Tiny diffusion model of coloured shapes", _held_out(loss_of))


def write_mae(folder: Path, recipe: PainterRecipe, save: Save, restore: Restore) -> None:
    """Train a small ViT-MAE to paint hidden patches, and write its folder."""
    kinds: tuple[Any, Any] = (ViTMAEConfig, ViTMAEForPreTraining)
    torch.manual_seed(recipe.seed)
    config = kinds[0](
        image_size=SIZE, patch_size=PATCH, hidden_size=96, num_hidden_layers=4,
        num_attention_heads=4, intermediate_size=192, decoder_hidden_size=64,
        decoder_num_hidden_layers=2, decoder_num_attention_heads=4, decoder_intermediate_size=128,
    )  # fmt: skip
    network = kinds[1](config)

    def loss_of(x: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, ""]:
        noise = torch.rand(len(x), (SIZE // PATCH) ** 2, generator=generator)
        found: Tensor = network(pixel_values=x, noise=noise).loss
        return found

    _train(network, loss_of, recipe, save, restore)
    network.save_pretrained(folder)
    pictures = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures, indent=1))
    _write_card(folder, recipe, "Tiny masked autoencoder of coloured shapes", _held_out(loss_of))


def _train(
    network: nn.Module, loss_of: Loss, recipe: PainterRecipe, save: Save, restore: Restore
) -> None:
    """Train in place, or go on from where `restore` does; prints the loss."""
    pictures = draw_pictures(recipe.scenes, np.random.default_rng(recipe.seed), stickers=0.0)
    pixels = normalise(pictures.pixels)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, recipe.learning_rate, weight_decay=0.0)
    network.train()
    for step in range(restore(network, optimizer), recipe.steps):
        generator = torch.Generator().manual_seed(recipe.seed * recipe.steps + step)
        rows = torch.randint(len(pixels), (recipe.batch,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.learning_rate)
        loss = loss_of(pixels[rows], generator)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == recipe.steps - 1:
            print(f"{type(network).__name__} step {step} loss {loss.item():.4f}", flush=True)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            save(network, optimizer, step + 1)
    network.eval()


@torch.no_grad()
def _held_out(loss_of: Loss) -> float:
    """The loss on pictures that were never trained on."""
    pictures = draw_pictures(HELD_OUT, np.random.default_rng(HELD_OUT_SEED), stickers=0.0)
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    return loss_of(normalise(pictures.pixels), generator).item()


def _write_card(folder: Path, recipe: PainterRecipe, description: str, loss: float) -> None:
    card = {
        "id": folder.name,
        "kind": "painter",
        "description": f"{description}, for baselines",
        "recipe": asdict(recipe),
        "sha256": hashes(folder),
        "quality": {"held_out_loss": loss, "pictures": HELD_OUT},
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
