"""DiffusionGemma: Gemma 4's tower, a causal encoder and a block-diffusion decoder. EXPERIMENTAL.

Experimental because it has run on random weights only: its activations, gradients and sampler agree
with transformers' model, but neither the attack nor the defence has been seen on trained weights,
and this model has no mask token, so what hides a visual token is a choice of ours.
Our own adapter over transformers' modules; model: https://huggingface.co/google (diffusiongemma).
Letters: B batch, L positions, D width, V vocabulary, T canvas, P visual tokens of one picture.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor, nn

from disp_engine.diffusion.surprise import surprise
from disp_engine.errors import InvalidModelError, InvalidRequestError, SampleError
from disp_engine.interfaces import Generation
from disp_engine.models.diffusion_gemma.backbone import Backbone, Prefix, Prompts
from disp_engine.models.diffusion_gemma.canvas import Lesson, Noise, cut, filled
from disp_engine.models.diffusion_gemma.config import GemmaFolder
from disp_engine.models.diffusion_gemma.hiding import GemmaSettings, hidden_rows, stand_ins
from disp_engine.models.diffusion_gemma.images import Patcher, Patches
from disp_engine.models.diffusion_gemma.prompt import Prompter
from disp_engine.models.diffusion_gemma.sampler import Sampler, until_end
from disp_engine.models.diffusion_gemma.weights import PROJECTOR, memory, shapes
from disp_engine.models.inspection import Blueprint
from disp_engine.models.projector import save_projector
from disp_engine.models.revision import read_all
from disp_engine.models.tensors import Checkpoint, check_names
from disp_engine.records import (
    IGNORE,
    IMAGE_TOKEN,
    Embedded,
    FirstStep,
    Tokens,
    Turn,
    VisualFeatures,
)

__all__ = ["PROJECTOR", "DiffusionGemma", "GemmaSettings", "memory", "shapes"]

_PICTURES_AT_ONCE = 16


class DiffusionGemma:
    """The adapter; only `projector` asks for gradients."""

    settings_type: ClassVar[type[GemmaSettings]] = GemmaSettings
    projector_prefix: ClassVar[str] = PROJECTOR
    loading: ClassVar[str] = (
        "model.load_state_dict(safetensors.torch.load_file({path!r}), strict=False)"
    )

    def __init__(
        self,
        folder: GemmaFolder,
        backbone: Backbone,
        prompter: Prompter | None,
        revision: str,
        settings: GemmaSettings,
    ) -> None:
        self.folder, self.backbone, self.settings = folder, backbone, settings
        self.config, self.revision = folder.config, revision
        self._prompter, self._patcher = prompter, Patcher(folder)
        embedder = backbone.model.model.encoder.embed_vision
        self._norm = embedder.embedding_pre_projection_norm
        self.projector: nn.Module = embedder.embedding_projection.float()  # bf16 loses small steps
        self.projector.requires_grad_(True)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        settings: GemmaSettings | None = None,
    ) -> "DiffusionGemma":
        """Load a checkpoint folder in the official layout; no code in it is ever run.

        `dtype` None keeps that of the files. A folder without `tokenizer.json` can be run on token
        ids, and refuses texts.
        """
        if device == "auto":
            raise InvalidRequestError(
                "device auto: DiffusionGemma is not spread over devices; encoder and decoder share "
                "their layers. Name one device."
            )
        facts, settings = GemmaFolder.read(folder), settings or GemmaSettings()
        has_words = (folder / "tokenizer.json").is_file()
        prompter = Prompter.from_folder(folder) if has_words else None
        checkpoint = cls.checkpoint(folder)
        check_names(shapes(facts.config), checkpoint)
        tensors, weights = read_all(checkpoint, facts.files, PROJECTOR)
        revision = _revision(weights, settings)
        kind = dtype or next(iter(tensors.values())).dtype
        backbone = Backbone.assembled(facts.config, tensors, kind)
        backbone.model.to(device)
        return cls(facts, backbone, prompter, revision, settings)

    @classmethod
    def checkpoint(cls, folder: Path) -> Checkpoint:
        """The folder's weight files by their headers."""
        return Checkpoint.from_folder(folder)

    @classmethod
    def check(cls, folder: Path) -> None:
        """Raise InvalidModelError unless config, tokenizer and headers fit one another."""
        check_names(shapes(GemmaFolder.read(folder).config), cls.checkpoint(folder))
        Prompter.from_folder(folder)

    @classmethod
    def blueprint(cls, folder: Path, dtype: str) -> Blueprint:
        """Sizes, names and memory of the model that the folder's config plans."""
        facts = GemmaFolder.read(folder)
        tensors = shapes(facts.config)
        text = facts.config.text_config
        named = {name: getattr(text, name) for name in ("hidden_size", "num_hidden_layers")}
        sizes = named | facts.config.to_dict()
        return Blueprint(sizes, tensors, memory(facts.config, facts.soft_tokens, tensors, dtype))

    @property
    def prompter(self) -> Prompter:
        """The tokenizer and the turn format; InvalidModelError where the folder has none."""
        if self._prompter is None:
            raise InvalidModelError("tokenizer.json is missing: this folder takes token ids only.")
        return self._prompter

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen model; the projector is kept in float32."""
        return self.backbone.embedding.dtype

    @property
    def canvas(self) -> int:
        """Tokens of a canvas: the block of this family."""
        length: int = self.config.canvas_length
        return length

    def encode_images(self, images: Sequence[Image]) -> list[VisualFeatures]:
        """Run the frozen tower over the pictures, padded to one number of patches."""
        found: list[VisualFeatures] = []
        for start in range(0, len(images), _PICTURES_AT_ONCE):
            some = images[start : start + _PICTURES_AT_ONCE]
            rows = self.tower_rows(self._patcher(some))
            pairs = zip(rows, some, strict=True)
            found += [VisualFeatures(row[None], image.size) for row, image in pairs]
        return found

    @torch.no_grad()
    def tower_rows(self, patches: Patches) -> list[Float[Tensor, "P C"]]:
        """Pooled features of each picture."""
        pooled = self.backbone.model.model.encoder.vision_tower(
            pixel_values=patches.pixels.to(self.device),
            pixel_position_ids=patches.positions.to(self.device),
        ).last_hidden_state
        return list(torch.split(pooled, list(patches.soft_tokens)))

    def project(self, features: Float[Tensor, "P C"]) -> Float[Tensor, "P D"]:
        """Visual tokens, in the model's dtype; unlike text they are not scaled by sqrt(D)."""
        normed = self._norm(features.to(self.device, next(self.projector.parameters()).dtype))
        projected: Tensor = self.projector(normed)
        return projected.to(self.dtype)

    def tokenise_prompt(self, turns: Sequence[Turn]) -> Tokens:
        """Render a conversation up to the opening of the model's next turn."""
        return self.prompter.prompt(turns)

    def tokenise_example(self, turns: Sequence[Turn]) -> Tokens:
        """Render a conversation; its last answer is labelled, with the end of its turn."""
        return self.prompter.example(turns)

    def tokenise_response(self, text: str) -> Int[Tensor, " T"]:
        """The ids by which the model would say a text, without the end of its turn."""
        return torch.tensor(self.prompter.encode(text), dtype=torch.long)

    def embed(self, tokens: Tokens, features: Sequence[VisualFeatures]) -> Embedded:
        """Project the pictures and put them, between their two marks, in place of image tokens."""
        ids = tokens.ids.to(self.device)
        marks = (ids == IMAGE_TOKEN).nonzero()[:, 0].tolist()
        if len(marks) != len(features):
            raise SampleError(f"The text has {len(marks)} <image> for {len(features)} pictures.")
        labels = torch.full_like(ids, IGNORE) if tokens.labels is None else tokens.labels.to(ids)
        rows: list[Tensor] = []
        targets: list[Tensor] = []
        spans: list[tuple[int, int]] = []
        begin = size = 0
        for mark, picture in zip(marks, features, strict=True):
            visual = self.project(picture.tiles[0])
            rows += [self._words(ids[begin:mark]), self._mark("boi"), visual, self._mark("eoi")]
            targets += [labels[begin:mark], labels.new_full((len(visual) + 2,), IGNORE)]
            size += mark - begin + 1
            spans.append((size, size + len(visual)))
            begin, size = mark + 1, size + len(visual) + 1
        embeddings = torch.cat([*rows, self._words(ids[begin:])])
        self._refuse_long(len(embeddings))
        merged = torch.cat([*targets, labels[begin:]])
        return Embedded(embeddings, tuple(spans), None if tokens.labels is None else merged)

    def _words(self, ids: Int[Tensor, " T"]) -> Float[Tensor, "T D"]:
        return self.backbone.token_embeddings(ids)

    def _mark(self, name: str) -> Float[Tensor, "1 D"]:
        return self._words(torch.tensor([getattr(self.config, f"{name}_token_id")]).to(self.device))

    def _refuse_long(self, length: int) -> None:
        longest = self.backbone.config.max_position_embeddings - self.canvas
        if length > longest:
            raise SampleError(f"The conversation takes {length} of {longest} positions.")

    def hide(self, prompt: Embedded, chosen: Bool[Tensor, " Lv"]) -> Embedded:
        """Hide chosen visual tokens as the settings say (Eq. 10)."""
        rows = hidden_rows(prompt.visual(), chosen)
        if self.settings.hiding == "unread":
            read = ~rows if prompt.attended is None else prompt.attended & ~rows
            return replace(prompt, attended=read)
        others = stand_ins(self.settings, self.backbone.embedding, len(prompt.embeddings))
        return replace(prompt, embeddings=torch.where(rows[:, None], others, prompt.embeddings))

    def first_step(
        self, prompts: Sequence[Embedded], length: int, rows: int, seed: int
    ) -> FirstStep:
        """The first step from several random canvases, drawn from `seed`, without a first guess.

        A response of any length begins with one canvas. For `unread` what is shown are gates, the
        shares of the attention: 1 as it is, 0 hidden; else it is the embeddings.
        """
        if rows > self.canvas:
            raise InvalidRequestError(f"rows must not exceed the canvas of {self.canvas} tokens.")
        side = Prompts.of(prompts)
        places = _places([len(prompt.embeddings) for prompt in prompts], side)
        if self.settings.hiding == "unread":
            shown = torch.ones(*places.shape, 1, device=self.device).requires_grad_()
            gate = torch.ones_like(side.attended, dtype=torch.float32)
            gate = _placed(gate, shown[..., 0], places).to(self.dtype)
            prefix, hidden = self.backbone.encode(side, gate), torch.zeros_like(shown)
        else:
            flat = nn.utils.rnn.pad_sequence([p.embeddings.detach() for p in prompts], True)
            shown = flat.requires_grad_()
            embeddings = _placed(side.embeddings.detach(), shown, places)
            prefix = self.backbone.encode(replace(side, embeddings=embeddings))
            hidden = stand_ins(self.settings, self.backbone.embedding, places.shape[1])
            hidden = hidden.expand_as(shown)
        logits = self._first_logits(prefix, rows, seed)
        return FirstStep(logits, shown, hidden, self.settings.canvases)

    def _first_logits(self, prefix: Prefix, rows: int, seed: int) -> Float[Tensor, "B T V"]:
        """Logits of the same canvases for each prompt, side by side."""
        count, generator = self.settings.canvases, torch.Generator().manual_seed(seed)
        noise = torch.randint(
            self.backbone.config.vocab_size, (count, self.canvas), generator=generator
        ).to(self.device)
        prompts = len(prefix.attended)
        hidden = self.backbone.decode(prefix.repeated(count), noise.repeat(prompts, 1))[:, :rows]
        logits = self.backbone.logits(hidden)
        return logits.reshape(prompts, count * rows, logits.shape[-1])

    def denoise(
        self,
        prompts: Sequence[Embedded],
        generation: Generation,
        generator: torch.Generator | None = None,
    ) -> list[Int[Tensor, " _"]]:
        """Denoise one response for each prompt by the published sampler; ids up to its end.

        The sampler is random: each row draws from its own generator, seeded by `generator`, or
        all alike where there is none, so that a row's answer does not depend on its neighbours.
        """
        canvases, steps = self._plan(generation)
        seeds = [0] * len(prompts)
        if generator is not None:
            where = generator.device
            drawn = torch.randint(2**62, (len(prompts),), generator=generator, device=where)
            seeds = drawn.tolist()
        with torch.inference_mode():
            prefix = self.backbone.encode(Prompts.of(prompts))
            sampler = Sampler(self.backbone, self.folder.sampling, self.canvas, steps)
            rows = [torch.Generator().manual_seed(seed) for seed in seeds]
            answers = sampler.answers(prefix, canvases, rows)
        stops: list[Sequence[int]] = [(end,) for end in self.folder.sampling.ends]
        stops += [self.prompter.encode(stop) for stop in generation.stop or ()]
        return [until_end(answer[: generation.length].clone(), stops) for answer in answers]

    def _plan(self, generation: Generation) -> tuple[int, int]:
        """Canvases of a response, and steps of each; what this family lacks is refused."""
        if generation.guidance or generation.temperature or generation.suffix:
            raise InvalidRequestError("DiffusionGemma has no guidance, temperature or suffix.")
        if generation.block_length != self.canvas:
            raise InvalidRequestError(f"block_length must be the canvas: {self.canvas} tokens.")
        canvases = -(-generation.length // self.canvas)
        if generation.steps is None:
            return canvases, self.folder.sampling.steps
        if generation.steps < canvases or generation.steps % canvases:
            raise InvalidRequestError(f"steps must be a multiple of the {canvases} canvases.")
        return canvases, generation.steps // canvases

    def noised_loss(
        self, batch: Sequence[Embedded], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The published objective over a batch, noised by draws from `generator`."""
        lessons = [cut(example, self.canvas, generator) for example in batch]
        shape = (len(lessons), self.canvas)
        noise = Noise.draw(shape, self.backbone.config.vocab_size, generator)
        return self.training_loss(lessons, noise)

    def training_loss(self, lessons: Sequence[Lesson], noise: Noise) -> Float[Tensor, ""]:
        """Canvas loss plus the encoder's next-token loss, each the mean of the rows' means."""
        eos = int(self.folder.sampling.ends[0])
        blocks = [lesson.block.to(self.device) for lesson in lessons]
        clean = filled(blocks, self.canvas, eos)
        prefix = self.backbone.encode(Prompts.of([lesson.prefix for lesson in lessons]))
        noisy = noise.applied(clean)
        hidden = self.backbone.decode(prefix, noisy, *self._guess(prefix, noisy, noise))
        canvas_loss = surprise(hidden.flatten(0, 1), clean.flatten(), self.backbone.logits).mean()
        return canvas_loss + self._next_token_loss(lessons, blocks, clean, prefix)

    @torch.no_grad()
    def _guess(
        self, prefix: Prefix, noisy: Int[Tensor, "B T"], noise: Noise
    ) -> tuple[Float[Tensor, "B T V"] | None, Bool[Tensor, " B"] | None]:
        """The decoder's own first guess, for the rows that are conditioned on it."""
        if not bool(noise.guessed.any()):
            return None, None
        logits = self.backbone.logits(self.backbone.decode(prefix, noisy))
        return logits, noise.guessed.to(self.device)

    def _next_token_loss(
        self,
        lessons: Sequence[Lesson],
        blocks: Sequence[Int[Tensor, " _"]],
        clean: Int[Tensor, "B T"],
        prefix: Prefix,
    ) -> Float[Tensor, ""]:
        """The encoder's loss over the answer up to the end of the block (not its filling)."""
        before = prefix.hidden
        after = self.backbone.go_on(prefix, clean).hidden
        losses = []
        for row, (lesson, block) in enumerate(zip(lessons, blocks, strict=True)):
            told = before[row, -len(lesson.prefix_labels) :]
            hidden = torch.cat([told, after[row, : len(block)]])[:-1]
            targets = torch.cat([lesson.prefix_labels.to(block), block])[1:]
            wanted = targets != IGNORE
            losses.append(surprise(hidden[wanted], targets[wanted], self.backbone.logits).mean())
        return torch.stack(losses).mean()

    def save_projector(self, path: Path) -> None:
        """Write the projector as safetensors under its official name, in the model's dtype."""
        save_projector(self.projector, PROJECTOR, self.dtype, path)

    def text(self, ids: Int[Tensor, " T"]) -> str:
        """The response without special tokens."""
        return self.prompter.decode(ids)


def _revision(weights: str, settings: GemmaSettings) -> str:
    told = json.dumps(asdict(settings), sort_keys=True)
    return hashlib.sha256(f"{weights}:{told}".encode()).hexdigest()


def _places(lengths: Sequence[int], side: Prompts) -> Int[Tensor, "B L"]:
    """Where each prompt's positions, counted from its begin, lie among the left-padded ones.

    Positions beyond a prompt's end lie beyond the last one.
    """
    longest = side.embeddings.shape[1]
    places = torch.arange(longest, device=side.embeddings.device).expand(len(lengths), -1)
    begins = torch.tensor([longest - length for length in lengths], device=places.device)
    return places + begins[:, None]


def _placed(base: Tensor, values: Tensor, places: Int[Tensor, "B L"]) -> Tensor:
    """`base` with `values` at their places; values beyond the last position fall out."""
    longest = base.shape[1]
    roomy = torch.cat([base, torch.zeros_like(base)], dim=1).to(values.dtype)
    index = places.reshape(*places.shape, *[1] * (values.ndim - 2)).expand(values.shape)
    return roomy.scatter(1, index, values)[:, :longest]
