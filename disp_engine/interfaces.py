"""What a method may know of a model, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor, nn

from disp_engine.diffusion.schedule import Schedule
from disp_engine.records import Embedded, FirstStep, Tokens, Turn, VisualFeatures

Remasking = Literal["low_confidence", "random", "margin", "entropy"]


@dataclass(frozen=True)
class Generation:
    """How a response is denoised (lengths in tokens; paper B.1 uses 32/32/32).

    `steps` None is the family's own number: in masked diffusion one token a step. `stop` strings
    end the answer and are cut off; None is the end of the family's turn.
    `remasking` tells what counts as confidence; `schedule` how commits spread over a block.
    """

    length: int = 32
    block_length: int = 32
    steps: int | None = None
    stop: tuple[str, ...] | None = None
    guidance: float = 0.0
    temperature: float = 0.0
    suffix: str = ""
    remasking: Remasking = "low_confidence"
    schedule: Schedule = field(default_factory=Schedule)


@runtime_checkable
class MaskedDenoiser(Protocol):
    """What masked diffusion needs of a model: a mask, and logits wherever one stands."""

    @property
    def mask_embedding(self) -> Float[Tensor, " D"]:
        """What stands at a position still to be filled (e_mask)."""
        ...

    def token_embeddings(self, ids: Int[Tensor, " T"]) -> Float[Tensor, "T D"]:
        """Embeddings of text tokens, the mask among them."""
        ...

    def logits(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        attended: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None = None,
    ) -> Float[Tensor, "B R V"]:
        """Logits at `rows`; `attended` marks keys or [query, key] pairs, None all of them."""
        ...


@runtime_checkable
class DiffusionModel(Protocol):
    """A diffusion language model with a visual projector: the adapter's verbs.

    Embed a prompt with its visual spans (`encode_images`, `tokenise_*`, `embed`); hide visual
    tokens; the first step of a response, differentiable in the prompt; denoise a response; the
    projector and its objective. How a response is noised is the family's own affair.
    """

    projector: nn.Module
    revision: str
    """sha256 over the checkpoint's config, tokenizer and weights, the projector's excepted."""

    @property
    def device(self) -> torch.device: ...

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

    def hide(self, prompt: Embedded, chosen: Bool[Tensor, " Lv"]) -> Embedded:
        """Put what the family hides with in place of chosen visual tokens (Eq. 10)."""
        ...

    def first_step(
        self, prompts: Sequence[Embedded], length: int, rows: int, seed: int
    ) -> FirstStep:
        """Begin a response of `length` tokens to each prompt; logits of its first `rows` tokens.

        Responses begin as pure noise; where that is random it is drawn from `seed`.
        """
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
class AttendingModel(DiffusionModel, MaskedDenoiser, Protocol):
    """A masked denoiser that also shows where it looks, for the methods that read attention."""

    @property
    def depth(self) -> int:
        """Number of layers of the language model."""
        ...

    def attention_rows(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        layers: Sequence[int],
        attended: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None = None,
    ) -> Float[Tensor, "B N H R L"]:
        """Attention weights from `rows` to every position, in each of N layers and H heads."""
        ...


@runtime_checkable
class PlacingModel(DiffusionModel, Protocol):
    """A model that knows where on a picture its visual tokens look."""

    def places(self, picture: VisualFeatures) -> Float[Tensor, "T 4"]:
        """Left, top, right, bottom of each token's part, as shares; nan for one of no part."""
        ...
