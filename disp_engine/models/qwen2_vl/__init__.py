"""Qwen2-VL: pictures at their own size, positions by time, row and column.

Paper: https://arxiv.org/abs/2409.12191. Letters: P patches, L positions.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from PIL.Image import Image
from torch import Tensor
from transformers.models.qwen2_vl.configuration_qwen2_vl import (
    Qwen2VLConfig,
    Qwen2VLTextConfig,
    Qwen2VLVisionConfig,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLForConditionalGeneration

from disp_engine.models.autoregressive.chat import ChatFormat
from disp_engine.models.autoregressive.config import ConfigKinds
from disp_engine.models.autoregressive.model import CausalModel, Shown
from disp_engine.models.autoregressive.pictures import processed
from disp_engine.records import Grid, VisualFeatures

CHAT = ChatFormat(
    opening="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
    user="<|im_start|>user\n{}<|im_end|>\n",
    header="<|im_start|>assistant\n",
    answer="{}",
    closing="<|im_end|>\n",
    picture="<|vision_start|><|image_pad|><|vision_end|>",
    token="<|image_pad|>",
)


class Qwen2Vl(CausalModel):
    """The adapter of folders like Qwen/Qwen2-VL-7B-Instruct; the merger is the projector."""

    library_class: ClassVar[Any] = Qwen2VLForConditionalGeneration
    processor_class: ClassVar[Any] = Qwen2VLImageProcessorPil
    projector_prefix: ClassVar[str] = "model.visual.merger."
    kinds: ClassVar[ConfigKinds] = ConfigKinds(
        Qwen2VLConfig,
        {"qwen2_vl_text": Qwen2VLTextConfig},
        {"qwen2_vl_vision": Qwen2VLVisionConfig, "qwen2_vl": Qwen2VLVisionConfig},
        flat=True,
        unused=frozenset({"in_chans", "spatial_patch_size"}),
    )

    @classmethod
    def check_config(cls, config: Any) -> None:
        """All that the config class accepts is supported."""

    @classmethod
    def chat_format(cls, config: Any) -> ChatFormat:
        """ChatML's turns with the usual system's."""
        return CHAT

    @classmethod
    def largest_picture(cls, config: Any) -> int:
        """The processor's default of 1,280 tokens."""
        return 1280

    def tower_features(self, image: Image) -> VisualFeatures:
        """All patches, those of one visual token side by side, before the merger."""
        cut = processed(self.processor, image)
        patches = self.backbone.whole.model.visual(
            cut["pixel_values"].to(self.device, self.dtype),
            grid_thw=cut["image_grid_thw"].to(self.device),
        ).last_hidden_state
        return VisualFeatures(patches[None], image.size)

    def project(self, tiles: Float[Tensor, "1 P C"]) -> Float[Tensor, "1 Q D"]:
        """The merger's outputs; it takes patches one after the other."""
        kind = next(self.projector.parameters()).dtype
        merged: Tensor = self.projector(tiles[0].to(self.device, kind))
        return merged.to(self.dtype)[None]

    def show(self, features: VisualFeatures) -> Shown:
        """Row after row of the picture."""
        rows, columns = self._size(features.size)
        return Shown(self.project(features.tiles)[0], (Grid(0, rows, columns, columns),))

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of visual tokens of a picture of (width, height) pixels."""
        factor = self.processor.patch_size * self.processor.merge_size
        limits = self.processor.size
        high, wide = smart_resize(
            size[1], size[0], factor, limits["shortest_edge"], limits["longest_edge"]
        )
        return high // factor, wide // factor

    def visual_positions(
        self, size: int, spans: Sequence[tuple[int, int]], grids: Sequence[Grid]
    ) -> Int[Tensor, "3 L"]:
        """Text counts on; a picture stands at one time and goes on by its longer side."""
        parts: list[Tensor] = []
        at = begin = 0
        for (start, end), grid in zip(spans, grids, strict=True):
            parts.append(_counting(at, start - begin))
            at += start - begin
            rows = torch.arange(grid.rows).repeat_interleave(grid.columns)
            columns = torch.arange(grid.columns).repeat(grid.rows)
            parts.append(torch.stack([torch.zeros_like(rows), rows, columns]) + at)
            at, begin = at + max(grid.rows, grid.columns), end
        parts.append(_counting(at, size - begin))
        return torch.cat(parts, dim=1).to(self.device)


def _counting(first: int, count: int) -> Int[Tensor, "3 N"]:
    return torch.arange(first, first + count).expand(3, -1)
