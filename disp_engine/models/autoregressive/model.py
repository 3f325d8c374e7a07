"""A causal model in transformers' format behind the verbs of `AutoregressiveModel`.

Letters: B batch, L positions, D width of the language model, V vocabulary, P visual tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor, nn

from disp_engine.errors import InvalidModelError, SampleError
from disp_engine.interfaces import Watcher
from disp_engine.models.autoregressive import attention, weights
from disp_engine.models.autoregressive.backbone import Backbone
from disp_engine.models.autoregressive.chat import ChatFormat, Prompter
from disp_engine.models.autoregressive.config import ConfigKinds, Facts, read_facts
from disp_engine.models.autoregressive.pictures import build_processor
from disp_engine.models.inspection import Blueprint
from disp_engine.models.projector import save_projector
from disp_engine.models.revision import read_all
from disp_engine.models.tensors import Checkpoint, check_names
from disp_engine.records import (
    IGNORE,
    IMAGE_TOKEN,
    Embedded,
    Grid,
    Reading,
    Said,
    Tokens,
    Turn,
    VisualFeatures,
)


@dataclass(frozen=True)
class Shown:
    """One picture's visual tokens, and its tiles with places counted from the first token."""

    tokens: Float[Tensor, "P D"]
    grids: tuple[Grid, ...]


M = TypeVar("M", bound="CausalModel")


class CausalModel(ABC):
    """What the families' adapters have in common; only `projector` asks for gradients."""

    library_class: ClassVar[Any]
    processor_class: ClassVar[Any]
    kinds: ClassVar[ConfigKinds]
    projector_prefix: ClassVar[str] = "model.multi_modal_projector."
    loading: ClassVar[str] = (
        "model.load_state_dict(safetensors.torch.load_file({path!r}), strict=False)"
    )

    def __init__(self, facts: Facts, backbone: Backbone, prompter: Prompter, revision: str) -> None:
        self.facts, self.backbone, self.prompter = facts, backbone, prompter
        self.config, self.revision = facts.config, revision
        self.processor = build_processor(self.processor_class, facts.pictures)
        path = self.projector_prefix.rstrip(".")
        self.projector: nn.Module = backbone.whole.get_submodule(path)
        self.projector.float().requires_grad_(True)  # small updates would vanish in bf16

    @classmethod
    def from_folder(
        cls: type[M],
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> M:
        """Load a checkpoint folder in transformers' format; no code in it is ever run.

        `dtype` None keeps that of the files.
        """
        facts, prompter, checkpoint = cls._described(folder)
        tensors, revision = read_all(checkpoint, facts.files, cls.projector_prefix)
        kind = dtype or next(iter(tensors.values())).dtype
        backbone = Backbone.assembled(cls.library_class, facts.config, tensors, kind)
        backbone.whole.to(device)
        return cls(facts, backbone, prompter, revision)

    @classmethod
    def _described(cls, folder: Path) -> tuple[Facts, Prompter, Checkpoint]:
        """All that is told of the weights, held against their headers."""
        facts, checkpoint = cls.read_facts(folder), cls.checkpoint(folder)
        check_names(weights.shapes(cls.library_class, facts.config, checkpoint), checkpoint)
        form = cls.chat_format(facts.config)
        return facts, Prompter.from_folder(folder, form, facts.config.image_token_id), checkpoint

    @classmethod
    def read_facts(cls, folder: Path) -> Facts:
        """Read the folder's JSON files."""
        facts = read_facts(folder, cls.kinds)
        cls.check_config(facts.config)
        return facts

    @classmethod
    def checkpoint(cls, folder: Path) -> Checkpoint:
        """The folder's weight files by their headers, under the modules' names."""
        return weights.open_checkpoint(folder)

    @classmethod
    def check(cls, folder: Path) -> None:
        """Raise InvalidModelError unless config, tokenizer and headers fit one another."""
        cls._described(folder)

    @classmethod
    def blueprint(cls, folder: Path, dtype: str) -> Blueprint:
        """Sizes, names and memory of the model that the folder's config plans."""
        config = cls.read_facts(folder).config
        tensors = weights.shapes(cls.library_class, config, None)
        text = config.text_config
        sizes = {
            name: getattr(text, name)
            for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        }
        tokens = cls.largest_picture(config)
        memory = weights.memory(config, tensors, cls.projector_prefix, tokens, dtype)
        return Blueprint(sizes, tensors, memory)

    @classmethod
    @abstractmethod
    def check_config(cls, config: Any) -> None:
        """Refuse settings that the family's adapter does not have."""

    @classmethod
    @abstractmethod
    def chat_format(cls, config: Any) -> ChatFormat:
        """What stands around the texts of a conversation."""

    @classmethod
    @abstractmethod
    def largest_picture(cls, config: Any) -> int:
        """Visual tokens of a picture at its largest, for the estimate of memory."""

    @abstractmethod
    def tower_features(self, image: Image) -> VisualFeatures:
        """One picture's tiles after the frozen tower, before the projector."""

    @abstractmethod
    def show(self, features: VisualFeatures) -> Shown:
        """Project one picture (differentiable)."""

    def visual_positions(
        self, size: int, spans: Sequence[tuple[int, int]], grids: Sequence[Grid]
    ) -> Int[Tensor, "3 L"] | None:
        """Positions by time, row and column, for families that count so."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen model; the projector is kept in float32."""
        return self.backbone.embedding.dtype

    @property
    def language(self) -> nn.Module:
        """The language model."""
        found: nn.Module = self.backbone.language
        return found

    @property
    def depth(self) -> int:
        """Number of layers of the language model."""
        return self.backbone.depth

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image]) -> list[VisualFeatures]:
        """Run the frozen tower over the pictures."""
        return [self.tower_features(image.convert("RGB")) for image in images]

    def project(self, tiles: Float[Tensor, "N P C"]) -> Float[Tensor, "N Q D"]:
        """Projector outputs of each tile, in the language model's dtype."""
        kind = next(self.projector.parameters()).dtype
        projected: Tensor = self.projector(tiles.to(self.device, kind))
        return projected.to(self.dtype)

    def tokenise_prompt(self, turns: Sequence[Turn]) -> Tokens:
        """Render a conversation up to and with the header of the next answer."""
        return self.prompter.prompt(turns)

    def tokenise_example(self, turns: Sequence[Turn]) -> Tokens:
        """Render a whole conversation; answers and the ends of their turns are labelled."""
        return self.prompter.example(turns)

    def tokenise_response(self, text: str) -> Int[Tensor, " T"]:
        """The ids by which the model would say a text, without the end of its turn."""
        return self.prompter.response(text)

    def embed(self, tokens: Tokens, features: Sequence[VisualFeatures]) -> Embedded:
        """Project the pictures and put them in place of the image tokens (differentiable)."""
        ids = tokens.ids.to(self.device)
        marks = (ids == IMAGE_TOKEN).nonzero()[:, 0].tolist()
        if len(marks) != len(features):
            raise SampleError(f"The text has {len(marks)} <image> for {len(features)} pictures.")
        labels = torch.full_like(ids, IGNORE) if tokens.labels is None else tokens.labels.to(ids)
        rows: list[Tensor] = []
        targets: list[Tensor] = []
        spans: list[tuple[int, int]] = []
        grids: list[Grid] = []
        begin = size = 0
        for mark, picture in zip(marks, features, strict=True):
            shown = self.show(picture)
            rows += [self.backbone.token_embeddings(ids[begin:mark]), shown.tokens]
            targets += [labels[begin:mark], labels.new_full((len(shown.tokens),), IGNORE)]
            start = size + mark - begin
            spans.append((start, start + len(shown.tokens)))
            grids += [grid.moved(start) for grid in shown.grids]
            begin, size = mark + 1, start + len(shown.tokens)
        embeddings = torch.cat([*rows, self.backbone.token_embeddings(ids[begin:])])
        self._refuse_long(len(embeddings))
        merged = None if tokens.labels is None else torch.cat([*targets, labels[begin:]])
        positions = self.visual_positions(len(embeddings), spans, grids)
        return Embedded(embeddings, tuple(spans), merged, grids=tuple(grids), positions=positions)

    def _refuse_long(self, length: int) -> None:
        longest = self.config.text_config.max_position_embeddings
        if length > longest:
            raise SampleError(f"The conversation takes {length} of {longest} positions.")

    @torch.no_grad()
    def read(self, prompts: Sequence[Embedded]) -> Reading:
        """Read prompts of any lengths."""
        return self.backbone.read(prompts)

    @torch.no_grad()
    def say(self, reading: Reading, length: int) -> Iterator[Said]:
        """Greedy answers of at most `length` tokens, one token of each at a time."""
        ends = torch.tensor(self.facts.ends, device=self.device)
        alive = torch.ones(len(reading.pads), dtype=torch.bool, device=self.device)
        for _ in range(length):
            ids = reading.logits.argmax(dim=-1)
            alive = alive & ~torch.isin(ids, ends)
            yield Said(ids, alive)
            if not bool(alive.any()):
                return
            reading = self.backbone.go_on(reading, ids)

    def watching(self, watcher: Watcher) -> AbstractContextManager[None]:
        """Show the watcher what is read meanwhile, also by `say`."""
        if wrong := [layer for layer in watcher.layers if not 0 <= layer < self.depth]:
            raise InvalidModelError(f"layers: {wrong} are not among the {self.depth} layers.")
        return attention.watching(watcher)

    def hiding(
        self, columns: Bool[Tensor, "B K"], first_layer: int
    ) -> AbstractContextManager[None]:
        """Let no row of the layers from `first_layer` on read the marked columns meanwhile."""
        return attention.hiding(columns, first_layer)

    def answer_logits(self, batch: Sequence[Embedded]) -> Float[Tensor, "N V"]:
        """Logits of a batch's labelled tokens, example by example."""
        return self.backbone.answer_logits(batch)[0]

    def next_token_loss(self, batch: Sequence[Embedded]) -> Float[Tensor, ""]:
        """Mean cross-entropy of a batch's labelled tokens, each predicted from those before it."""
        return self.backbone.next_token_loss(batch)

    def save_projector(self, path: Path) -> None:
        """Write the projector as safetensors under the modules' names, in the model's dtype."""
        save_projector(self.projector, self.projector_prefix, self.dtype, path)

    def text(self, ids: Int[Tensor, " T"]) -> str:
        """The response without special tokens."""
        return self.prompter.decode(ids)
