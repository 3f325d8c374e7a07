"""Recordings of LLaVA-like models: cases of prompts, generations and training batches."""

import json
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

from disp_engine.diffusion.forward import mask_tokens
from disp_engine.interfaces import Generation
from disp_engine.models.llada_v.images import tiles_of
from disp_engine.models.llada_v.weights import NEWLINE, PROJECTOR
from disp_engine.records import IGNORE, Embedded, Tokens, Turn, VisualFeatures
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

SKIPPED = {
    "gen.visual_emask_official": "the official sampler finds masks by comparing embeddings and so "
    "fills visual tokens; a sampler that tracks ids does not reproduce this"
}
_SYSTEM_END = "<|eot_id|>"


class LladaVRecording:
    """A fixture folder and the adapter loaded from it."""

    skipped = SKIPPED

    def __init__(self, folder: Path) -> None:
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.inputs = load_file(folder / "inputs.safetensors")
        self.expected = load_file(folder / "expected.safetensors")
        logits = [v for name, v in self.expected.items() if name.endswith(".response_logits")]
        # The recordings were made without the official loader's cut of the vocabulary.
        self.model = family(folder).from_folder(folder, vocabulary=logits[0].shape[-1])

    @cached_property
    def pictures(self) -> list[Image.Image]:
        count = sum(name.startswith("raw_image_") for name in self.inputs)
        return [Image.fromarray(np.asarray(self.inputs[f"raw_image_{i}"])) for i in range(count)]

    def features(self, case: str) -> list[VisualFeatures]:
        """Encode a case's pictures in the form (list or 4-D tensor) in which they were passed."""
        entry = self.meta["cases"][case]
        pictures = [self.pictures[i] for i in entry["image_index"]]
        features: list[VisualFeatures] = self.model.encode_images(
            pictures, as_list=not self.as_tensor(case)
        )
        return features

    def as_tensor(self, case: str) -> bool:
        """The tensor form gives one tile per picture and no newline; with neither it is moot."""
        patches, spans = self.model.config.vision.side**2, self.meta["cases"][case]["spans"]
        return all(end - start == patches for start, end in spans)

    def turns(self, case: str) -> list[Turn]:
        """The user's question, taken out of the recorded prompt."""
        messages = self.meta["cases"][case]["prompt"].split(_SYSTEM_END)[1:-1]
        roles = {"user": "human", "assistant": "gpt"}
        pairs = [message.split("<|end_header_id|>\n\n", 1) for message in messages]
        return [
            Turn(roles[head.removeprefix("<|start_header_id|>")], text)  # type: ignore[arg-type]
            for head, text in pairs
        ]

    def prompt(self, case: str) -> Embedded:
        tokens = self.model.tokenise_prompt(self.turns(case))
        prompt: Embedded = self.model.embed(tokens, self.features(case))
        return prompt

    def response_logits(
        self, embeddings: Float[Tensor, "L D"], length: int
    ) -> Float[Tensor, "R V"]:
        """Logits of `length` masks after the prompt."""
        masks = self.model.mask_embedding.expand(length, -1)
        rows = len(embeddings) + torch.arange(length)
        scores: Tensor = self.model.logits(torch.cat([embeddings, masks])[None], rows[None])
        return scores[0]

    def cases(self) -> Iterator[Case]:
        """What there is to compare, found in `meta.json`."""
        yield "pictures", partial(compare_pictures, self)
        for case in self.meta["cases"]:
            yield case, partial(compare_prompt, self, case)
            yield case, partial(compare_case, self, case)
        for name in self.meta.get("generation", {}):
            if f"gen.{name}" in self.expected and f"gen.{name}" not in SKIPPED:
                yield f"gen.{name}", partial(compare_generation, self, name)
        for tag in self.meta.get("training", {}):
            if f"train.{tag}.t" in self.inputs:
                yield f"train.{tag}", partial(compare_texts, self, tag)
                yield f"train.{tag}", partial(compare_training, self, tag)


def compare_pictures(record: LladaVRecording) -> dict[str, Comparison]:
    """Raw pictures against the recorded pixel values."""
    found = []
    for i, picture in enumerate(record.pictures):
        want = record.inputs[f"pixel_values_{i}"]
        got = tiles_of(picture, record.model.config)
        got = got[0] if want.ndim == 3 else got
        found.append(compare("pictures", f"pixel_values_{i}", got, want, ACTIVATION))
    return named(found)


def compare_case(record: LladaVRecording, case: str) -> dict[str, Comparison]:
    """All recorded quantities of one prompt, by tensor name."""
    entry, expected = record.meta["cases"][case], record.expected
    quantities: dict[str, Callable[[], Tensor]] = {}
    prompt, features = record.prompt(case), record.features(case)
    tiles = torch.cat([picture.tiles for picture in features])
    quantities["tower_features"] = lambda: tiles
    quantities["projected"] = lambda: record.model.project(tiles)
    quantities["inputs_embeds"] = lambda: prompt.embeddings[None]
    for j, (start, end) in enumerate(prompt.spans):
        quantities[f"visual_{j}"] = lambda start=start, end=end: prompt.embeddings[start:end]  # type: ignore[misc]
    length = entry["response_len"]
    quantities["response_logits"] = lambda: record.response_logits(prompt.embeddings, length)
    masked = torch.where(prompt.visual()[:, None], record.model.mask_embedding, prompt.embeddings)
    quantities["response_logits_visual_emask"] = lambda: record.response_logits(masked, length)
    results = {
        f"{case}.{name}": compare(
            case, name, quantity().detach(), expected[f"{case}.{name}"], ACTIVATION
        )
        for name, quantity in quantities.items()
        if f"{case}.{name}" in expected
    }
    return results | compare_gradients(record, case, prompt, length)


def compare_gradients(
    record: LladaVRecording, case: str, prompt: Embedded, length: int
) -> dict[str, Comparison]:
    """Gradients of sum(q * logits) with respect to the visual tokens and the parameters."""
    names = [name for name in record.expected if name.startswith(f"{case}.grad_")]
    if not names:
        return {}
    newline = record.model.newline
    if newline is not None:
        newline.requires_grad_()
    parameters = projector_parameters(record) | ({} if newline is None else {NEWLINE: newline})
    embeddings = record.prompt(case).embeddings
    embeddings.retain_grad()
    (record.inputs["q"] * record.response_logits(embeddings, length)).sum().backward()
    gradients = {f"grad_q.{name}": taken_gradient(value) for name, value in parameters.items()}
    if newline is not None:
        newline.requires_grad_(False)
    assert embeddings.grad is not None
    gradients["grad_visual"] = embeddings.grad[prompt.visual()]
    return {
        name: compare(
            case,
            name.removeprefix(f"{case}."),
            gradients[name.removeprefix(f"{case}.")],
            record.expected[name],
            GRADIENT,
        )
        for name in names
    }


def taken_gradient(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, which is cleared."""
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    parameter.grad = None
    return gradient


def projector_parameters(record: LladaVRecording) -> dict[str, Tensor]:
    return {PROJECTOR + n: value for n, value in record.model.projector.named_parameters()}


def compare_prompt(record: LladaVRecording, case: str) -> dict[str, Comparison]:
    """Our rendering, tokenisation and places of the pictures against the recorded ones."""
    turns, entry = record.turns(case), record.meta["cases"][case]
    text = record.model.prompter.prompt_text(turns)
    same = torch.tensor([text == entry["prompt"]])
    found = [compare(case, "prompt", same, torch.tensor([True]), EXACT)]
    if f"{case}.input_ids" in record.inputs:
        ids = record.model.tokenise_prompt(turns).ids[None]
        found.append(compare(case, "input_ids", ids, record.inputs[f"{case}.input_ids"], EXACT))
    spans = torch.tensor(record.prompt(case).spans)
    found.append(compare(case, "spans", spans, torch.tensor(entry["spans"]), EXACT))
    return named(found)


def compare_generation(record: LladaVRecording, name: str) -> dict[str, Comparison]:
    """The sampler's ids."""
    settings = record.meta["generation"][name]
    generation = Generation(
        length=settings["gen_length"],
        block_length=settings["block_length"],
        steps=settings["steps"],
        stop=tuple(settings.get("stopping_criteria", ())),
        guidance=settings.get("cfg_scale", 0.0),
        suffix=settings.get("generation_suffix", ""),
    )
    (ids,) = record.model.denoise([record.prompt(settings["case"])], generation)
    ids_hold = compare(f"gen.{name}", "ids", ids[None], record.expected[f"gen.{name}"], EXACT)
    return {f"gen.{name}": ids_hold}


def compare_training(record: LladaVRecording, tag: str) -> dict[str, Comparison]:
    """Labels, masks, loss and projector gradients of a batch."""
    settings = record.meta["training"][tag]
    t, u = record.inputs[f"train.{tag}.t"], record.inputs[f"train.{tag}.u"]
    batch = examples(record, settings, width=u.shape[1])
    collated = record.model.collate(batch)
    masking = mask_tokens(collated.labels != IGNORE, t, u)
    loss = record.model.training_loss(
        batch, t, u, conversation_mask=settings["use_conversation_mask"]
    )
    loss.backward()
    found = {
        "inputs_embeds_clean": (collated.embeddings.detach(), ACTIVATION),
        "merged_labels": (collated.labels, EXACT),
        "conversation_ids": (record.model.rounds(collated.labels), EXACT),
        "masked": (masking.masked, EXACT),
        "p_mask": (masking.p, ACTIVATION),
        "loss": (loss.detach(), GRADIENT),
    }
    for name, value in projector_parameters(record).items():
        found[f"grad.{name}"] = (taken_gradient(value), GRADIENT)
    return {
        f"train.{tag}.{name}": compare(
            f"train.{tag}", name, got, record.expected[f"train.{tag}.{name}"], tolerance
        )
        for name, (got, tolerance) in found.items()
        if f"train.{tag}.{name}" in record.expected
    }


def tokenised(record: LladaVRecording, settings: Mapping[str, Any]) -> list[Tokens]:
    roles = {"human", "gpt"}
    conversations = [record.meta["training"]["conversations"][i] for i in settings["samples"]]
    assert all(turn["from"] in roles for turns in conversations for turn in turns)
    return [
        record.model.tokenise_example([Turn(turn["from"], turn["value"]) for turn in turns])
        for turns in conversations
    ]


def examples(record: LladaVRecording, settings: Mapping[str, Any], *, width: int) -> list[Embedded]:
    """Embed a batch with its pictures passed as a list, or as a tensor where the width says so."""
    as_list = embedded(record, settings, as_list=True)
    if record.model.collate(as_list).labels.shape[1] == width:
        return as_list
    return embedded(record, settings, as_list=False)


def embedded(
    record: LladaVRecording, settings: Mapping[str, Any], *, as_list: bool
) -> list[Embedded]:
    """Embed a batch; its pictures are handed out in order."""
    pictures = [record.pictures[i] for i in settings["images"]]
    features = iter(record.model.encode_images(pictures, as_list=as_list))
    return [
        record.model.embed(tokens, [next(features) for _ in range(int((tokens.ids < 0).sum()))])
        for tokens in tokenised(record, settings)
    ]


def compare_texts(record: LladaVRecording, tag: str) -> dict[str, Comparison]:
    """Our ids and labels of a batch, padded, against what the official collator made."""
    found = []
    rows = tokenised(record, record.meta["training"][tag])
    labels = [row.labels for row in rows if row.labels is not None]
    for name, ours in (("input_ids", [row.ids for row in rows]), ("labels", labels)):
        if f"train.{tag}.{name}" in record.inputs:
            want = record.inputs[f"train.{tag}.{name}"]
            found.append(compare(f"train.{tag}", name, padded(record, ours), want, EXACT))
    return named(found)


def padded(record: LladaVRecording, rows: Sequence[Int[Tensor, " _"]]) -> Int[Tensor, "B L"]:
    return torch.nn.utils.rnn.pad_sequence(
        list(rows), batch_first=True, padding_value=record.model.prompter.pad
    )
