"""What the recordings of the families in LLaVA's layout have in common."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from disp_engine.interfaces import Generation
from disp_engine.models.llava.images import tiles_of
from disp_engine.models.llava.weights import NEWLINE, PROJECTOR
from disp_engine.records import Embedded, Tokens, Turn, VisualFeatures
from disp_engine.registry import family
from tests.recordings.comparison import (
    ACTIVATION,
    EXACT,
    GRADIENT,
    Case,
    Comparison,
    compare,
    named,
)

_TURN_END = "<|eot_id|>"
_ROLES = {"user": "human", "assistant": "gpt"}

Quantity = Callable[[], Tensor]
NOTHING = torch.empty(0)
"""In the place of what a recording names and does not hold; of no recorded shape."""


class LlavaRecording(ABC):
    """A fixture folder; every quantity is found by its name in `expected.safetensors`."""

    label_padding: int

    def __init__(self, folder: Path) -> None:
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.inputs = load_file(folder / "inputs.safetensors")
        self.expected = load_file(folder / "expected.safetensors")
        self.model: Any = family(folder).from_folder(folder, vocabulary=self._rows())

    def cases(self) -> Iterator[Case]:
        yield "pictures", self.compare_pictures
        for case in self.meta["cases"]:
            yield case, partial(self.compare_prompt, case)
            yield case, partial(self.compare_case, case)
            yield case, partial(self.compare_gradients, case)
        for name in self.meta.get("generation", {}):
            if f"gen.{name}" in self.expected:
                yield f"gen.{name}", partial(self.compare_generation, name)
        for tag in self.meta.get("training", {}):
            if f"train.{tag}.t" in self.inputs:
                yield f"train.{tag}", partial(self.compare_texts, tag)
                yield f"train.{tag}", partial(self.compare_training, tag)

    @abstractmethod
    def generation(self, settings: Mapping[str, Any]) -> Generation:
        """The recorded settings of a generation as ours."""

    @abstractmethod
    def training(self, tag: str) -> Mapping[str, tuple[Tensor, float]]:
        """What a batch gives, with tolerances; the loss has gone backward."""

    def response(self, embeddings: Float[Tensor, "L D"], length: int) -> Float[Tensor, "R V"]:
        """Logits of `length` masks after the prompt."""
        masks = self.model.mask_embedding.expand(length, -1)
        rows = len(embeddings) + torch.arange(length)
        scores: Tensor = self.model.logits(torch.cat([embeddings, masks])[None], rows[None])
        return scores[0]

    def denoised(self, prompt: Embedded, settings: Mapping[str, Any]) -> Int[Tensor, " T"]:
        (ids,) = self.model.denoise([prompt], self.generation(settings))
        return ids

    def quantities(
        self, prompt: Embedded, tiles: Float[Tensor, "N P C"], length: int
    ) -> dict[str, Quantity]:
        """What a prompt gives, by the recorded names."""
        masked = self.without_pictures(prompt)
        spans = enumerate(prompt.spans)
        visual = {f"visual_{j}": prompt.embeddings[start:end] for j, (start, end) in spans}
        return {
            "tower_features": lambda: tiles,
            "projected": lambda: self.model.project(tiles),
            "inputs_embeds": lambda: prompt.embeddings[None],
            "response_logits": lambda: self.response(prompt.embeddings, length),
            "response_logits_visual_emask": lambda: self.response(masked, length),
        } | {name: partial(torch.clone, rows) for name, rows in visual.items()}

    def gradients(self, case: str) -> dict[str, Quantity]:
        """Gradients of sum(q * logits) with respect to visual tokens and parameters."""
        return {"grad_visual": lambda: self.visual_gradient(case)} | {
            f"grad_q.{name}": partial(self.parameter_gradient, case, name)
            for name in (*self.parameters(), NEWLINE)
        }

    def compare_pictures(self) -> dict[str, Comparison]:
        """Raw pictures against the recorded pixel values."""
        found = []
        for name, want in sorted(self.inputs.items()):
            if number := re.fullmatch(r"pixel_values_(\d+)", name):
                got = self._pixels(int(number[1]), one=want.ndim == 3)
                found.append(compare("pictures", name, got, want, ACTIVATION))
        return named(found)

    def _pixels(self, number: int, *, one: bool) -> Tensor:
        if number >= len(self.pictures):
            return NOTHING
        tiles = tiles_of(self.pictures[number], self.model.config)
        return tiles[0] if one else tiles

    def _rows(self) -> int | None:
        """Rows of the vocabulary; only the logits tell whether the official loader cut it."""
        scores = [v for name, v in self.expected.items() if "response_logits" in name]
        found = [self.inputs["q"]] if "q" in self.inputs else scores
        return found[0].shape[-1] if found else None

    def compare_prompt(self, case: str) -> dict[str, Comparison]:
        """Our rendering, tokenisation and places of the pictures against the recorded ones."""
        turns, entry = self.turns(case), self.meta["cases"][case]
        same = torch.tensor([self.model.prompter.prompt_text(turns) == entry["prompt"]])
        found = [compare(case, "prompt", same, torch.tensor([True]), EXACT)]
        if f"{case}.input_ids" in self.inputs:
            ids = self.model.tokenise_prompt(turns).ids[None]
            found.append(compare(case, "input_ids", ids, self.inputs[f"{case}.input_ids"], EXACT))
        spans = torch.tensor(self.prompt(case).spans)
        found.append(compare(case, "spans", spans, torch.tensor(entry["spans"]), EXACT))
        return named(found)

    def compare_case(self, case: str) -> dict[str, Comparison]:
        """All recorded activations of one prompt."""
        tiles = torch.cat([NOTHING, *(picture.tiles for picture in self.features(case))])
        length = self.meta["cases"][case]["response_len"]
        return self._recorded(case, self.quantities(self.prompt(case), tiles, length), ACTIVATION)

    def compare_gradients(self, case: str) -> dict[str, Comparison]:
        """All recorded gradients of one prompt."""
        return self._recorded(case, self.gradients(case), GRADIENT)

    def compare_generation(self, name: str) -> dict[str, Comparison]:
        """The sampler's ids."""
        settings = self.meta["generation"][name]
        ids = self.denoised(self.prompt(settings["case"]), settings)
        want = self.expected[f"gen.{name}"]
        return {f"gen.{name}": compare(f"gen.{name}", "ids", ids[None], want, EXACT)}

    def compare_texts(self, tag: str) -> dict[str, Comparison]:
        """Our ids and labels of a batch, padded, against what the official collator made."""
        rows = self.tokenised(tag)
        labels = [row.labels for row in rows if row.labels is not None]
        found = []
        for name, ours, padding in (
            ("input_ids", [row.ids for row in rows], self.model.prompter.pad),
            ("labels", labels, self.label_padding),
        ):
            if f"train.{tag}.{name}" in self.inputs:
                want = self.inputs[f"train.{tag}.{name}"]
                got = _padded(ours, want.shape[1], padding)
                found.append(compare(f"train.{tag}", name, got, want, EXACT))
        return named(found)

    def compare_training(self, tag: str) -> dict[str, Comparison]:
        """Labels, masks, loss and projector gradients of a batch."""
        found = dict(self.training(tag))
        for name, value in self.parameters().items():
            found[f"grad.{name}"] = (_taken_gradient(value), GRADIENT)
        return {
            f"train.{tag}.{name}": compare(
                f"train.{tag}", name, got.detach(), self.expected[f"train.{tag}.{name}"], tolerance
            )
            for name, (got, tolerance) in found.items()
            if f"train.{tag}.{name}" in self.expected
        }

    @cached_property
    def pictures(self) -> list[Image.Image]:
        count = sum(name.startswith("raw_image_") for name in self.inputs)
        return [Image.fromarray(np.asarray(self.inputs[f"raw_image_{i}"])) for i in range(count)]

    def features(self, case: str) -> list[VisualFeatures]:
        """Encode a case's pictures in the form, list or 4-D tensor, that gives the spans."""
        entry = self.meta["cases"][case]
        pictures = [self.pictures[i] for i in entry["image_index"]]
        tokens = self.model.tokenise_prompt(self.turns(case))
        as_list: list[VisualFeatures] = self.model.encode_images(pictures)
        if [list(span) for span in self.model.embed(tokens, as_list).spans] == entry["spans"]:
            return as_list
        as_tensor: list[VisualFeatures] = self.model.encode_images(pictures, as_list=False)
        return as_tensor

    def turns(self, case: str) -> list[Turn]:
        """The user's question, taken out of the recorded prompt."""
        messages = self.meta["cases"][case]["prompt"].split(_TURN_END)[1:-1]
        pairs = [message.split("<|end_header_id|>\n\n", 1) for message in messages]
        return [
            Turn(_ROLES[head.removeprefix("<|start_header_id|>")], text)  # type: ignore[arg-type]
            for head, text in pairs
        ]

    def prompt(self, case: str) -> Embedded:
        tokens = self.model.tokenise_prompt(self.turns(case))
        prompt: Embedded = self.model.embed(tokens, self.features(case))
        return prompt

    def without_pictures(self, prompt: Embedded) -> Float[Tensor, "L D"]:
        """The prompt with the mask embedding at every visual token."""
        visual = prompt.visual()[:, None]
        return torch.where(visual, self.model.mask_embedding, prompt.embeddings)

    def visual_gradient(self, case: str) -> Float[Tensor, "Lv D"]:
        prompt = self.prompt(case)
        prompt.embeddings.retain_grad()
        self.backward(case, prompt)
        assert prompt.embeddings.grad is not None
        for value in self.parameters().values():
            value.grad = None
        return prompt.embeddings.grad[prompt.visual()]

    def parameter_gradient(self, case: str, name: str) -> Tensor:
        parameters, newline = self.parameters(), self.model.newline
        if newline is not None:
            newline.requires_grad_()
            parameters[NEWLINE] = newline
        self.backward(case, self.prompt(case))
        gradients = {name: _taken_gradient(value) for name, value in parameters.items()}
        if newline is not None:
            newline.requires_grad_(False)
        return gradients[name]

    def backward(self, case: str, prompt: Embedded) -> None:
        length = self.meta["cases"][case]["response_len"]
        (self.inputs["q"] * self.response(prompt.embeddings, length)).sum().backward()

    def parameters(self) -> dict[str, Tensor]:
        return {PROJECTOR + n: value for n, value in self.model.projector.named_parameters()}

    def tokenised(self, tag: str) -> list[Tokens]:
        training = self.meta["training"]
        conversations = [training["conversations"][i] for i in training[tag]["samples"]]
        return [
            self.model.tokenise_example([Turn(turn["from"], turn["value"]) for turn in turns])
            for turns in conversations
        ]

    def examples(self, tag: str, extra_pads: int = 0) -> list[Embedded]:
        """Embed a batch with its pictures passed as a list, or as a tensor where the width says."""
        as_list = self._embedded(tag, as_list=True)
        width = self.inputs[f"train.{tag}.u"].shape[1]
        if self.model.collate(as_list, extra_pads).labels.shape[1] == width:
            return as_list
        return self._embedded(tag, as_list=False)

    def _embedded(self, tag: str, *, as_list: bool) -> list[Embedded]:
        """Embed a batch; its pictures are handed out in order."""
        pictures = [self.pictures[i] for i in self.meta["training"][tag]["images"]]
        features = iter(self.model.encode_images(pictures, as_list=as_list))
        return [
            self.model.embed(tokens, [next(features) for _ in range(int((tokens.ids < 0).sum()))])
            for tokens in self.tokenised(tag)
        ]

    def _recorded(
        self, case: str, quantities: Mapping[str, Quantity], tolerance: float
    ) -> dict[str, Comparison]:
        return {
            f"{case}.{name}": compare(
                case, name, quantity().detach(), self.expected[f"{case}.{name}"], tolerance
            )
            for name, quantity in quantities.items()
            if f"{case}.{name}" in self.expected
        }


def _padded(rows: Sequence[Int[Tensor, " _"]], width: int, value: int) -> Int[Tensor, "B L"]:
    short = [row.new_full((max(0, width - len(row)),), value) for row in rows]
    longer = [torch.cat([row, tail]) for row, tail in zip(rows, short, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(longer, batch_first=True, padding_value=value)


def _taken_gradient(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, which is cleared."""
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    parameter.grad = None
    return gradient
