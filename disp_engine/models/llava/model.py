"""LLaVA's shape of a model behind the adapter's five verbs: tower, projector, language model.

Our own adapter over transformers' modules. Letters: B batch, L positions, D width of the language
model, V vocabulary, N tiles, P patches.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from disp_engine.diffusion import sampler
from disp_engine.diffusion.attention import Attention
from disp_engine.diffusion.batch import masked_first_step
from disp_engine.diffusion.row import Words
from disp_engine.errors import InvalidModelError, SampleError
from disp_engine.interfaces import NOWHERE, Generation, Span
from disp_engine.models.inspection import Blueprint
from disp_engine.models.llava import weights
from disp_engine.models.llava.attention import weights_at
from disp_engine.models.llava.cache import PromptCache
from disp_engine.models.llava.chat import EOT, ChatPrompter
from disp_engine.models.llava.config import LlavaConfig
from disp_engine.models.llava.grids import token_grids
from disp_engine.models.llava.hiding import hiding
from disp_engine.models.llava.images import tiles_of, visual_tokens
from disp_engine.models.llava.llama import FullAttentionLlama
from disp_engine.models.llava.memory import memory
from disp_engine.models.llava.merging import cut, put_in
from disp_engine.models.llava.names import llama_name
from disp_engine.models.llava.placement import Placement
from disp_engine.models.llava.places import token_boxes
from disp_engine.models.llava.siglip import SiglipTower, build_projector
from disp_engine.models.projector import save_projector
from disp_engine.models.tensors import Checkpoint, check_names
from disp_engine.records import (
    IGNORE,
    Embedded,
    FirstStep,
    Grid,
    Tokens,
    Turn,
    VisualFeatures,
)
from disp_engine.saliency.masking import hide

_TILES_AT_ONCE = 16


@dataclass(frozen=True)
class Collated:
    """A batch as the official collator makes it.

    Shorter texts get PAD tokens, labelled and learned, up to the longest text; rows still
    shorter (their pictures are smaller) get zero embeddings, without label but attended.
    """

    embeddings: Float[Tensor, "B L D"]
    labels: Int[Tensor, "B L"]


@dataclass(frozen=True)
class Modules:
    """The parts of a model; `newline` ends each row of a picture's tokens, where there are rows."""

    language: FullAttentionLlama
    tower: SiglipTower
    projector: nn.Sequential
    newline: "Newline | None"

    @classmethod
    def empty(cls, config: LlavaConfig) -> "Modules":
        """Build the parts on the `meta` device: sizes without weights."""
        with torch.device("meta"):
            return cls(
                FullAttentionLlama(config),
                SiglipTower(config.vision),
                build_projector(config),
                Newline(config.hidden_size) if config.unpadded else None,
            )

    def named(self) -> dict[str, nn.Module]:
        """The parts by the prefix of their tensors' names."""
        parts: dict[str, nn.Module] = {
            weights.TOWER: self.tower.vision,
            weights.PROJECTOR: self.projector,
            **self.language.named(),
        }
        return parts if self.newline is None else parts | {"model.": self.newline}


class Newline(nn.Module):
    """Holds `model.image_newline`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image_newline = nn.Parameter(torch.empty(width))


M = TypeVar("M", bound="LlavaModel")


class LlavaModel(ABC):
    """What the families' adapters have in common; only `projector` asks for gradients."""

    config_class: ClassVar[type[LlavaConfig]]
    prompter_class: ClassVar[type[ChatPrompter]]
    projector_prefix: ClassVar[str] = weights.PROJECTOR
    rows_of_a_sample: ClassVar[int] = 1
    loading: ClassVar[str] = (
        "model.load_state_dict(safetensors.torch.load_file({path!r}), strict=False)"
    )
    attention: Attention = Attention.FULL

    def __init__(
        self, config: LlavaConfig, prompter: ChatPrompter, modules: Modules, revision: str
    ) -> None:
        self.config, self.prompter, self.revision = config, prompter, revision
        self.language = modules.language.eval().requires_grad_(False)
        self.tower = modules.tower.eval().requires_grad_(False)
        projector = modules.projector.float()  # small updates would vanish in bf16
        self.projector: nn.Module = projector.requires_grad_(True)  # a rank loads it without
        row = modules.newline
        self.newline = None if row is None else row.image_newline.requires_grad_(False)

    @classmethod
    def from_folder(
        cls: type[M],
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        vocabulary: int | None = None,
    ) -> M:
        """Load a checkpoint folder in the official layout; no code in it is ever run.

        `device` auto spreads the language model over all GPUs; `dtype` None keeps that of the
        files. `vocabulary` is the number of rows of the softmax: by default those the tokenizer
        uses, which is what the official loader keeps.
        """
        config, prompter, rows = cls._described(folder, vocabulary)
        checkpoint = cls._checked(folder, config)
        config = replace(config, vocab_size=rows)
        modules = Modules.empty(config)
        spread = device == "auto"
        place = Placement.spread(modules.language, dtype) if spread else Placement.on(device)
        described = _described_by(folder)
        revision = weights.fill(modules.named(), checkpoint, described, place.of, dtype)
        place.settle(modules.language, modules.tower)
        return cls(config, prompter, modules, revision)

    @classmethod
    def _described(
        cls, folder: Path, vocabulary: int | None = None
    ) -> tuple[LlavaConfig, ChatPrompter, int]:
        config, prompter = (
            cls.config_class.from_folder(folder),
            cls.prompter_class.from_folder(folder),
        )
        rows = prompter.size if vocabulary is None else vocabulary
        if not prompter.size <= rows <= config.vocab_size:
            raise InvalidModelError(
                f"tokenizer.json uses {prompter.size} ids, {rows} rows of the vocabulary are "
                f"wanted and config.json's vocab_size is {config.vocab_size}."
            )
        return config, prompter, rows

    @classmethod
    def _checked(cls, folder: Path, config: LlavaConfig) -> Checkpoint:
        checkpoint = cls.checkpoint(folder)
        check_names(weights.shapes(Modules.empty(config).named()), checkpoint)
        return checkpoint

    @classmethod
    def checkpoint(cls, folder: Path) -> Checkpoint:
        """The folder's weight files by their headers, under HF Llama's names."""
        return Checkpoint.from_folder(folder, llama_name)

    @classmethod
    def check(cls, folder: Path) -> None:
        """Raise InvalidModelError unless config, tokenizer and headers fit one another."""
        config, _, _ = cls._described(folder)
        cls._checked(folder, config)

    @classmethod
    def blueprint(cls, folder: Path, dtype: str) -> Blueprint:
        """Sizes, names and memory of the model that the folder's config plans."""
        config = cls.config_class.from_folder(folder)
        tensors = weights.shapes(Modules.empty(config).named())
        return Blueprint(
            asdict(config), tensors, memory(config, tensors, dtype, cls.rows_of_a_sample)
        )

    @property
    def device(self) -> torch.device:
        """Where prompts are put together, and where logits come back to."""
        return self.language.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen language model; the projector is kept in float32."""
        return self.language.embed_tokens.weight.dtype

    @property
    def mask_embedding(self) -> Float[Tensor, " D"]:
        """What stands at a position that is still masked (e_mask)."""
        return self.language.embed_tokens.weight[self.prompter.mask]

    @torch.no_grad()
    def encode_images(
        self, images: Sequence[Image], *, as_list: bool = True
    ) -> list[VisualFeatures]:
        """Run the frozen tower once over every different tile of the pictures.

        `as_list` False is the official 4-D tensor form: one padded tile for each picture.
        """
        pictures = [tiles_of(image, self.config, as_list=as_list) for image in images]
        keys = [[hashlib.sha256(t.numpy().tobytes()).digest() for t in tiles] for tiles in pictures]
        different = {
            key: tile
            for names, tiles in zip(keys, pictures, strict=True)
            for key, tile in zip(names, tiles, strict=True)
        }
        features = dict(zip(different, self._tower_rows(different.values()), strict=True))
        return [
            VisualFeatures(torch.stack([features[key] for key in names]), image.size, as_list)
            for names, image in zip(keys, images, strict=True)
        ]

    def _tower_rows(self, tiles: Iterable[Float[Tensor, "3 S S"]]) -> list[Float[Tensor, "P C"]]:
        rows: list[Tensor] = []
        for batch in _batches(list(tiles), _TILES_AT_ONCE):
            rows += self.tower(torch.stack(batch).to(self.device, self.dtype)).unbind()
        return rows

    def project(self, tiles: Float[Tensor, "N P C"]) -> Float[Tensor, "N P D"]:
        """Projector outputs of each tile, in the language model's dtype."""
        kind = next(self.projector.parameters()).dtype
        projected: Tensor = self.projector(tiles.to(self.device, kind))
        return projected.to(self.dtype)

    def tokenise_prompt(self, turns: Sequence[Turn]) -> Tokens:
        """Render a conversation up to and with the header of the next assistant turn."""
        return self.prompter.prompt(turns)

    def tokenise_example(self, turns: Sequence[Turn]) -> Tokens:
        """Render a whole conversation with the family's training labels."""
        return self.prompter.example(turns)

    def tokenise_response(self, text: str) -> Int[Tensor, " T"]:
        """The ids by which the model would say a text, without the end of its turn."""
        return torch.tensor(self.prompter.encode(text), dtype=torch.long)

    def embed(self, tokens: Tokens, features: Sequence[VisualFeatures]) -> Embedded:
        """Project the pictures and put them in place of the image tokens (differentiable).

        A training example is cut at the model's longest sequence; a prompt that is longer is
        refused, since its cut would take the question away.
        """
        return self.embed_all([tokens], [features])[0]

    def embed_all(
        self, tokens: Sequence[Tokens], features: Sequence[Sequence[VisualFeatures]]
    ) -> list[Embedded]:
        """`embed` each text with its pictures, all of which go through the projector at once."""
        visual = iter(self._visual([picture for pictures in features for picture in pictures]))
        return [
            self._merge(text, [next(visual) for _ in pictures], [*map(self._grids, pictures)])
            for text, pictures in zip(tokens, features, strict=True)
        ]

    def _merge(
        self,
        tokens: Tokens,
        pictures: Sequence[Float[Tensor, "_ D"]],
        grids: Sequence[Sequence[Grid]],
    ) -> Embedded:
        merged = put_in(pictures, grids, tokens, self.token_embeddings)
        longest = self.config.tokenizer_model_max_length
        if tokens.labels is None and len(merged.embeddings) > longest:
            raise SampleError(f"The prompt takes {len(merged.embeddings)} of {longest} positions.")
        return cut(merged, longest)

    def _visual(self, features: Sequence[VisualFeatures]) -> list[Float[Tensor, "_ D"]]:
        if not features:
            return []
        projected = self.project(torch.cat([picture.tiles for picture in features]))
        each = torch.split(projected, [len(picture.tiles) for picture in features])
        return [
            visual_tokens(tiles, picture.size, self.newline, self.config, as_list=picture.as_list)
            for tiles, picture in zip(each, features, strict=True)
        ]

    def places(self, picture: VisualFeatures) -> Float[Tensor, "T 4"]:
        """Where on the picture each of its visual tokens looks."""
        newline = self.newline is not None
        return token_boxes(
            picture.size, len(picture.tiles), self.config, newline=newline, as_list=picture.as_list
        )

    def _grids(self, picture: VisualFeatures) -> tuple[Grid, ...]:
        newline = self.newline is not None
        return token_grids(
            picture.size, len(picture.tiles), self.config, newline=newline, as_list=picture.as_list
        )

    def token_embeddings(self, ids: Int[Tensor, " T"]) -> Float[Tensor, "T D"]:
        """Embeddings of text tokens."""
        return self.language.token_embeddings(ids.to(self.device))

    def logits(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        attended: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None = None,
    ) -> Float[Tensor, "B R V"]:
        """Logits at `rows` only; the last layer and the head are run at no other position.

        `attended` marks keys or [query, key] pairs; None lets every position see every other.
        """
        return self.language.logits(self.language(embeddings, attended, rows))

    def read(
        self,
        prompts: Sequence[Float[Tensor, "_ D"]],
        responses: Float[Tensor, "B T D"] | None = None,
        again: Span = NOWHERE,
    ) -> PromptCache:
        """What prompts of any lengths leave for the responses that they do not see.

        Given `responses` they do see them, and these leave theirs too, `again` excepted.
        """
        starts = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        read, ends = list(prompts), starts
        if responses is not None:
            read = [torch.cat(both) for both in zip(prompts, responses, strict=True)]
            ends = starts + responses.shape[1]
        embeddings = pad_sequence(read, batch_first=True)
        places = torch.arange(embeddings.shape[1], device=self.device) - starts[:, None]
        attended = places < (ends - starts)[:, None]
        cache, first = PromptCache(attended, ends), starts.new_zeros(len(prompts), 1)
        self.language(embeddings, _unless_all(attended), first, cache=cache)
        if responses is None:
            return cache
        return cache.without((places >= again.start) & (places < again.end), starts + again.start)

    def logits_after(
        self, read: PromptCache, embeddings: Float[Tensor, "B L D"], rows: Int[Tensor, "B R"]
    ) -> Float[Tensor, "B R V"]:
        """Logits at `rows` of what is read in sight of all that the cache keeps."""
        following = torch.ones_like(embeddings[..., 0], dtype=torch.bool)
        seen = _unless_all(torch.cat([read.attended, following], dim=1))
        return self.language.logits(self.language(embeddings, seen, rows, cache=read))

    def hidden_at(
        self,
        embeddings: Float[Tensor, "B L D"],
        marked: Bool[Tensor, "B L"],
        attended: Bool[Tensor, "B L L"] | None = None,
    ) -> Float[Tensor, "M D"]:
        """Hidden states of the marked positions, in their order; rows without any are not read."""
        counts = marked.sum(dim=1)
        read = counts > 0
        read[0] |= ~read.any()  # one row, so that there is something to differentiate
        if not bool(read.all()):
            embeddings, marked, counts = embeddings[read], marked[read], counts[read]
            attended = None if attended is None else attended[read]
        widest = max(1, int(counts.max()))
        rows = marked.int().argsort(dim=1, descending=True, stable=True)[:, :widest]
        real = torch.arange(widest, device=rows.device) < counts[:, None]
        hidden: Tensor = self.language(embeddings, attended, rows, real)
        return hidden

    @property
    def depth(self) -> int:
        """Number of layers of the language model."""
        return len(self.language.layers)

    def attention_rows(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        layers: Sequence[int],
        attended: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None = None,
    ) -> Float[Tensor, "B N H R L"]:
        """Attention weights from `rows` to every position, in each of N layers and H heads."""
        return weights_at(self.language, embeddings, rows, layers, attended)

    def hiding(self, columns: Bool[Tensor, " P"], first_layer: int) -> AbstractContextManager[None]:
        """Let no row of the layers from `first_layer` on read the marked columns meanwhile."""
        return hiding(columns, first_layer)

    def hide(self, prompt: Embedded, chosen: Bool[Tensor, " Lv"]) -> Embedded:
        """Replace the chosen visual tokens by e_mask (Eq. 10)."""
        return hide(prompt, chosen, self.mask_embedding)

    def first_step(
        self, prompts: Sequence[Embedded], length: int, rows: int, seed: int
    ) -> FirstStep:
        """The first step with every response masked; nothing in it is random."""
        return masked_first_step(self, prompts, length, rows)

    def denoise(
        self,
        prompts: Sequence[Embedded],
        generation: Generation,
        generator: torch.Generator | None = None,
    ) -> list[Int[Tensor, " _"]]:
        """Denoise one response for each prompt; ids up to the stop, then the suffix."""
        stops = (EOT,) if generation.stop is None else generation.stop
        words = Words(
            mask=self.prompter.mask,
            suppressed=self.prompter.suppressed,
            stops=tuple(self.prompter.encode(stop) for stop in stops),
            suffix=self.prompter.encode(generation.suffix),
        )
        with torch.inference_mode():
            rows = [prompt.embeddings for prompt in prompts]
            answers = sampler.denoise(self, rows, generation, words, generator, self.attention)
        return [answer.clone() for answer in answers]

    def collate(self, batch: Sequence[Embedded], extra_pads: int = 0) -> Collated:
        """Make one batch of training examples; `extra_pads` go to the longest text."""
        texts = [_text_length(example) for example in batch]
        rows: list[Tensor] = []
        labels: list[Tensor] = []
        for example, length in zip(batch, texts, strict=True):
            if example.labels is None:
                raise SampleError("A training example needs labels.")
            room = self.config.tokenizer_model_max_length - len(example.embeddings)
            wanted = max(texts) + extra_pads - length
            pads = example.labels.new_full((min(wanted, room),), self.prompter.pad)
            rows.append(torch.cat([example.embeddings, self.token_embeddings(pads)]))
            labels.append(torch.cat([example.labels, pads]))
        return Collated(
            pad_sequence(rows, batch_first=True),
            pad_sequence(labels, batch_first=True, padding_value=IGNORE),
        )

    @abstractmethod
    def noised_loss(
        self, batch: Sequence[Embedded], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The family's objective, noised by draws from `generator` (on the CPU)."""

    def save_projector(self, path: Path) -> None:
        """Write the projector as safetensors under the official names, in the model's dtype."""
        save_projector(self.projector, weights.PROJECTOR, self.dtype, path)

    def text(self, ids: Int[Tensor, " T"]) -> str:
        """The response without special tokens."""
        return self.prompter.decode(ids)


def _described_by(folder: Path) -> list[Path]:
    names = ("config.json", "vision_config.json", "tokenizer.json")
    return [folder / name for name in names if (folder / name).is_file()]


def _unless_all(attended: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"] | None:
    """No mask where nothing is padding."""
    return None if bool(attended.all()) else attended


def _batches(tiles: list[Tensor], size: int) -> Iterable[list[Tensor]]:
    return (tiles[at : at + size] for at in range(0, len(tiles), size))


def _text_length(example: Embedded) -> int:
    """Token ids of the example, a picture counting as one."""
    visual = sum(end - start for start, end in example.spans)
    return len(example.embeddings) - visual + len(example.spans)
