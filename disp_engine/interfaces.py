"""What a method may know of a model, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor, nn

from disp_engine.records import Embedded, Tokens, Turn, VisualFeatures


@dataclass(frozen=True)
class Generation:
    """How a response is denoised (lengths in tokens; paper B.1 uses 32/32/32).

    `steps` None means one token a step. `stop` strings end the answer and are cut off.
    """

    length: int = 32
    block_length: int = 32
    steps: int | None = None
    stop: tuple[str, ...] = ("<|eot_id|>",)
    guidance: float = 0.0
    temperature: float = 0.0
    suffix: str = ""


@runtime_checkable
class DiffusionModel(Protocol):
    """A masked diffusion model with a visual projector: the adapter's five verbs.

    Embed a prompt with its visual spans (`encode_images`, `tokenise_*`, `embed`); the mask
    embedding; logits at chosen rows from embeddings; denoise a response; the projector.
    """

    projector: nn.Module
    revision: str
    """sha256 over the checkpoint's config, tokenizer and weights, the projector's excepted."""

    @property
    def device(self) -> torch.device: ...

    @property
    def mask_embedding(self) -> Float[Tensor, " D"]: ...

    def encode_images(self, images: Sequence[Image]) -> list[VisualFeatures]:
        """Run the frozen tower once over every different tile of the pictures."""
        ...

    def tokenise_prompt(self, turns: Sequence[Turn]) -> Tokens:
        """Render a conversation up to and with the header of the next assistant turn."""
        ...

    def tokenise_example(self, turns: Sequence[Turn]) -> Tokens:
        """Render a whole conversation with the family's training labels."""
        ...

    def embed(self, tokens: Tokens, features: Sequence[VisualFeatures]) -> Embedded:
        """Project the pictures and put them in place of the image tokens (differentiable)."""
        ...

    def logits(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        attended: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B R V"]:
        """Logits at `rows` only; `attended` None lets every position attend to every other."""
        ...

    def denoise(
        self,
        prompts: Sequence[Embedded],
        generation: Generation,
        generator: torch.Generator | None = None,
    ) -> list[Int[Tensor, " T"]]:
        """Denoise one response for each prompt, whatever their lengths; ids up to the stop."""
        ...

    def noised_loss(
        self, batch: Sequence[Embedded], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The family's objective (Eq. 2) over a batch, noised by draws from `generator` (Eq. 1)."""
        ...

    def tokenise_response(self, text: str) -> Int[Tensor, " T"]:
        """The ids by which the model would say a text, without the end of its turn."""
        ...

    def save_projector(self, path: Path) -> None:
        """Write the projector as safetensors under the family's official names."""
        ...

    def text(self, ids: Int[Tensor, " T"]) -> str:
        """The response as a user reads it."""
        ...


@runtime_checkable
class AttendingModel(DiffusionModel, Protocol):
    """A model that also shows where it looks: the verb that some methods need besides."""

    @property
    def depth(self) -> int:
        """Number of layers of the language model."""
        ...

    def attention(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        layers: Sequence[int],
        attended: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B N H R L"]:
        """Attention weights from `rows` to every position, in each of N layers and H heads."""
        ...
