"""A masked autoencoder that paints the tokens of a picture that it is not shown (ViT-MAE).

A folder as transformers saves `ViTMAEForPreTraining`: config.json, safetensors, and perhaps
preprocessor_config.json for the mean and deviation of the pixels. Paper: arXiv 2111.06377.

Letters: N tokens, row by row, R masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL.Image import Image, Resampling, fromarray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from transformers.models.vit_mae.configuration_vit_mae import ViTMAEConfig
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEForPreTraining

from disp_engine.errors import InvalidModelError
from disp_engine.guards.pictures import generator_of
from disp_engine.models.autoregressive.backbone import quietly
from disp_engine.models.checkpoint import read_json, refuse_remote_code

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the public checkpoints, where a folder says nothing."""
HIDDEN_SHARE = 0.75


@dataclass(frozen=True)
class Inpainter:
    """The network, and how its pixels are normalised."""

    network: Any
    mean: Sequence[float]
    deviation: Sequence[float]

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device) -> "Inpainter":
        """Read a folder; nothing of it is run."""
        raw = read_json(folder / "config.json")
        refuse_remote_code(raw, "config.json")
        kinds: tuple[Any, Any] = (ViTMAEConfig, ViTMAEForPreTraining)
        try:
            with quietly():
                network, told = kinds[1].from_pretrained(
                    None,
                    config=kinds[0](**raw),
                    state_dict=load_file(folder / "model.safetensors"),
                    output_loading_info=True,
                )
            left = (*told["missing_keys"], *told["unexpected_keys"], *told["mismatched_keys"])
            if left:
                raise ValueError(f"the weights do not fit: {left[0]}")
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise InvalidModelError(f"mae: {folder.name}: {error}") from error
        if network.config.norm_pix_loss or network.config.num_channels != 3:
            raise InvalidModelError(f"mae: {folder.name}: it must paint pixels in colour as such.")
        path = folder / "preprocessor_config.json"
        told = read_json(path) if path.is_file() else {}
        mean, deviation = told.get("image_mean", MEAN), told.get("image_std", DEVIATION)
        return cls(network.eval().requires_grad_(False).to(device), mean, deviation)

    @property
    def grid(self) -> int:
        """Tokens on a side."""
        count: int = self.network.config.image_size // self.network.config.patch_size
        return count

    def masks(self, image: Image, count: int, seed: int) -> Bool[np.ndarray, "R N"]:
        """Random masks that hide three quarters of the tokens."""
        generator, size = generator_of(image, seed), self.grid**2
        hidden = torch.zeros(count, size, dtype=torch.bool)
        for row in hidden:
            row[torch.randperm(size, generator=generator)[: round(HIDDEN_SHARE * size)]] = True
        return hidden.numpy()

    def by_token(self, values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, " N"]:
        """The mean of what was measured pixel by pixel, within each token."""
        pooled = adaptive_avg_pool2d(torch.from_numpy(values)[None], self.grid)
        found: np.ndarray = pooled.flatten().numpy()
        return found

    @torch.no_grad()
    def painted(self, image: Image, hidden: Bool[np.ndarray, " N"]) -> Image:
        """The picture with its hidden tokens painted; what is not hidden stays."""
        pixels = self._read(image)
        marked = torch.from_numpy(hidden)[None].to(pixels.device)
        kept = int((~hidden).sum())
        # Transformers keeps int(N (1 - ratio)) tokens of the least noise.
        self.network.config.mask_ratio = 1 - (kept + 0.5) / len(hidden)
        out = self.network(pixel_values=pixels, noise=marked.float())
        painted = self.network.unpatchify(
            torch.where(marked[..., None], out.logits, self.network.patchify(pixels))
        )
        return self._shown(painted, image)

    def _read(self, image: Image) -> Float[Tensor, "1 3 S S"]:
        side = self.network.config.image_size
        fitted = image.convert("RGB").resize((side, side), Resampling.BICUBIC)
        x = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None].float() / 255
        return ((x - _column(self.mean)) / _column(self.deviation)).to(self.network.device)

    def _shown(self, x: Float[Tensor, "1 3 S S"], like: Image) -> Image:
        shown = x.cpu() * _column(self.deviation) + _column(self.mean)
        pixels = (255 * shown[0].clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
        return fromarray(pixels).resize(like.size, Resampling.BICUBIC)


def _column(values: Sequence[float]) -> Float[Tensor, "1 3 1 1"]:
    return torch.tensor(values).view(1, 3, 1, 1)
