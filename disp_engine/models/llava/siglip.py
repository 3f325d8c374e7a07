"""From pixels to visual tokens: the SigLIP tower (frozen) and the projector (trained)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

from disp_engine.models.llava.config import LlavaConfig, VisionConfig


class SiglipTower(nn.Module):
    """Transformers' SigLIP less its last layer, its pooling head and its final norm.

    Official code deletes the last encoder layer and takes what the one before returns,
    without `post_layernorm`, whatever `mm_vision_select_layer` says.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vision = SiglipVisionModel(_siglip_config(config))
        with torch.device("cpu"):  # a buffer outside the checkpoint, so never left on `meta`
            self.vision.embeddings.position_ids = nn.Buffer(
                torch.arange(config.side**2)[None], persistent=False
            )

    def forward(self, pixels: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N P C"]:
        """Features of each tile after the last layer that is kept."""
        patches = self.vision.embeddings(pixels)
        features: Tensor = self.vision.encoder(inputs_embeds=patches).last_hidden_state
        return features


def build_projector(config: LlavaConfig) -> nn.Sequential:
    """`mlp2x_gelu`: the only part that DiSP trains; keys 0.{weight,bias} and 2.{weight,bias}."""
    return nn.Sequential(
        nn.Linear(config.vision.hidden_size, config.hidden_size),
        nn.GELU(),
        nn.Linear(config.hidden_size, config.hidden_size),
    )


def _siglip_config(config: VisionConfig) -> SiglipVisionConfig:
    siglip = SiglipVisionConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers - 1,
        num_attention_heads=config.num_attention_heads,
        num_channels=config.num_channels,
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
        vision_use_head=False,
    )
    siglip._attn_implementation = "sdpa"
    return siglip
