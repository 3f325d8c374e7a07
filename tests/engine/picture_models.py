"""Tiny random networks of pictures, saved as their libraries save them."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers.models.vit_mae.configuration_vit_mae import ViTMAEConfig
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEForPreTraining

SIDE, TOKENS = 16, 16


@cache
def ddpm_folder() -> Path:
    """Forty steps on pictures of 16 x 16."""
    folder = Path(mkdtemp(prefix="disp-ddpm-"))
    kinds: tuple[Any, Any] = (UNet2DModel, DDPMScheduler)
    torch.manual_seed(0)
    unet = kinds[0](
        sample_size=SIDE, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    kinds[1](num_train_timesteps=40, beta_end=0.3).save_pretrained(folder / "scheduler")
    return folder


@cache
def mae_folder() -> Path:
    """Four by four tokens on pictures of 16 x 16."""
    folder = Path(mkdtemp(prefix="disp-mae-"))
    kinds: tuple[Any, Any] = (ViTMAEConfig, ViTMAEForPreTraining)
    torch.manual_seed(0)
    config = kinds[0](
        image_size=SIDE, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, decoder_hidden_size=16, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=16,
    )  # fmt: skip
    kinds[1](config).save_pretrained(folder)
    return folder
