"""What a method may know of a model, and nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor, nn

from disp_engine.diffusion.schedule import Schedule
from disp_engine.records import (
    Embedded,
    FirstStep,
    Reading,
    Said,
    Tokens,
    Turn,
    VisualFeatures,
)

Remasking = Literal["low_confidence", "random", "margin", "entropy"]
KeyValueCache = Literal["none", "prefix", "dual"]


@dataclass(frozen=True)
class Generation:
    """How a response is denoised (lengths in tokens; paper B.1 uses 32/32/32).

    `steps` None is the family's own number: in masked diffusion one token a step. `stop` strings
    end the answer and are cut off; None is the end of the family's turn.
    `remasking` tells what counts as confidence; `schedule` how commits spread over a block.

    Two shortcuts are not exact (Fast-dLLM, arXiv 2505.22618): `kv_cache` reads only the response
    (prefix) or only the block (dual) again while a block is filled; above `parallel_threshold` all
    tokens that the model is so sure of are committed in one step.
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
    kv_cache: KeyValueCache = "none"
    parallel_threshold: float | None = None

    @property
    def exact(self) -> bool:
        """Whether no shortcut is taken."""
        return self.kv_cache == "none" and self.parallel_threshold is None

    def exactly(self) -> "Generation":
        """The same without shortcuts."""
        return replace(self, kv_cache="none", parallel_threshold=None)


class Span(NamedTuple):
    """Places of a response, counted from its first token; `end` is the first one after them."""

    start: int
    end: int


NOWHERE = Span(0, 0)


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
class Read(Protocol):
    """What was read, and left for what is read in its sight."""

    def of(self, prompts: Sequence[int]) -> "Read":
        """That of some of the prompts."""
        ...


@runtime_checkable
class RememberingDenoiser(MaskedDenoiser, Protocol):
    """A masked denoiser that can keep what it has read."""

    def read(
        self,
        prompts: Sequence[Float[Tensor, "_ D"]],
        responses: Float[Tensor, "B T D"] | None = None,
        again: Span = NOWHERE,
    ) -> Read:
        """Read prompts of any lengths, which do not see their responses.

        Given `responses` they see them, and these are read too; `again` is not kept of them.
        """
        ...

    def logits_after(
        self, read: Any, embeddings: Float[Tensor, "B L D"], rows: Int[Tensor, "B R"]
    ) -> Float[Tensor, "B R V"]:
        """Logits at `rows` of what follows the prompts, or is read again."""
        ...


@runtime_checkable
class VisualModel(Protocol):
    """A language model with a visual projector, however it makes its responses.

    Embed a prompt with its visual spans (`encode_images`, `tokenise_*`, `embed`); the projector.
    """

    projector: nn.Module
    projector_prefix: ClassVar[str]
    """What stands before the names of the projector's tensors in its files."""
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
class DiffusionModel(VisualModel, Protocol):
    """A diffusion language model with a visual projector: the adapter's verbs.

    Beside those of every visual model: hide visual tokens; the first step of a response,
    differentiable in the prompt; denoise a response; the objective. How a response is noised is
    the family's own affair.
    """

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
class HidingModel(AttendingModel, Protocol):
    """One that can also be kept from looking somewhere, for the defences that guard answers."""

    def hiding(self, columns: Bool[Tensor, " P"], first_layer: int) -> AbstractContextManager[None]:
        """Let no row of the layers from `first_layer` on read the marked columns meanwhile.

        They are those of one prompt of P positions, whatever follows it.
        """
        ...


@runtime_checkable
class PlacingModel(DiffusionModel, Protocol):
    """A model that knows where on a picture its visual tokens look."""

    def places(self, picture: VisualFeatures) -> Float[Tensor, "T 4"]:
        """Left, top, right, bottom of each token's part, as shares; nan for one of no part."""
        ...


@runtime_checkable
class AdaptableModel(VisualModel, Protocol):
    """A model whose language model can be given adapters."""

    @property
    def language(self) -> nn.Module:
        """The language model; its blocks are `layers`."""
        ...


@runtime_checkable
class BatchingModel(VisualModel, Protocol):
    """A model that takes the pictures of several texts through its projector at once."""

    def embed_all(
        self, tokens: Sequence[Tokens], features: Sequence[Sequence[VisualFeatures]]
    ) -> list[Embedded]:
        """`embed` each text with its own pictures."""
        ...


@runtime_checkable
class Watcher(Protocol):
    """Sees chosen rows of the attention while a causal model reads.

    `layers` are watched; of each pass the `last` row of every prompt is shown, or `all` rows.
    """

    @property
    def layers(self) -> frozenset[int]: ...

    @property
    def rows(self) -> Literal["last", "all"]: ...

    def see(self, layer: int, first: int, weights: Float[Tensor, "B H R K"]) -> None:
        """Attention of R rows, the first of which is row `first` of the pass, to all columns."""
        ...


@runtime_checkable
class Hider(Watcher, Protocol):
    """A watcher that hides columns by what it sees, in the pass in which it sees it.

    Whoever cannot hide that early does not ask.
    """

    def hide(self, layer: int) -> Bool[Tensor, "B K"] | None:
        """Columns that no row of the layer just seen, and of those after it, may read."""
        ...


@runtime_checkable
class PromptsRead(Protocol):
    """Prompts that were read side by side: position p of prompt b is column `pads[b] + p`."""

    @property
    def pads(self) -> tuple[int, ...]: ...


@runtime_checkable
class Respondent(Protocol):
    """Who answers prompts and shows meanwhile where it looks: all that a guard asks of a model.

    Read prompts, say answers token by token, show attention rows at named layers, hide columns of
    the attention.
    """

    @property
    def depth(self) -> int:
        """Number of layers of the language model."""
        ...

    def read(self, prompts: Sequence[Embedded]) -> PromptsRead:
        """Read prompts of any lengths."""
        ...

    def say(self, reading: Any, length: int) -> Iterator[Said]:
        """Greedy answers of at most `length` tokens, one token of each at a time.

        A token is read after it was handed out, so that a watcher sees its row; `reading` is used
        up. The end of the model's turn is not alive and not read.
        """
        ...

    def watching(self, watcher: Watcher) -> AbstractContextManager[None]:
        """Show the watcher what is read meanwhile, also by `say`."""
        ...

    def hiding(
        self, columns: Bool[Tensor, "B K"], first_layer: int
    ) -> AbstractContextManager[None]:
        """Let no row of the layers from `first_layer` on read the marked columns meanwhile."""
        ...


@runtime_checkable
class AutoregressiveModel(VisualModel, Respondent, Protocol):
    """A causal language model with a visual projector; its tuning's objective beside the verbs."""

    def read(self, prompts: Sequence[Embedded]) -> Reading:
        """Read prompts of any lengths."""
        ...

    def answer_logits(self, batch: Sequence[Embedded]) -> Float[Tensor, "N V"]:
        """Logits of a batch's N labelled tokens, each predicted from those before it."""
        ...

    def next_token_loss(self, batch: Sequence[Embedded]) -> Float[Tensor, ""]:
        """Mean cross-entropy of a batch's labelled tokens, each predicted from those before it."""
        ...
