"""Recordings of other sizes than the given ones, made by a literal reading of the families' facts.

Nothing of the adapters is used: transformers' whole Siglip and Llama models, loops over tiles, rows
and positions. A folder looks as those of the official code do, so the same comparison reads it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

FIXTURES = Path(__file__).parents[1] / "fixtures"
SYSTEM = (
    "<|startoftext|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and "
    "vision assistant. You are able to understand the visual content that the user provides, and "
    "assist the user with a variety of tasks using natural language.<|eot_id|>"
)
ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>\n\n"
PAD, BOS, MASK, START, END, EOT = 301, 300, 306, 307, 308, 309
TOWER = "model.vision_tower.vision_tower.vision_model."
RESPONSE = 8


@dataclass(frozen=True)
class Variant:
    """Sizes and settings of one recording; pictures are (width, height)."""

    family: str = "llada_v"
    seed: int = 1
    width: int = 48
    inner: int = 80
    layers: int = 2
    heads: int = 6
    groups: int = 2
    rows: int = 352
    tied: bool = False
    tower: Mapping[str, int] = field(
        default_factory=lambda: dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3,
                                     num_attention_heads=3, image_size=42, patch_size=14)
    )  # fmt: skip
    aspect: str = "pad"
    merge: str = "spatial_unpad"
    pinpoints: Any = None
    sizes: Sequence[tuple[int, int]] = ((90, 50), (40, 77))
    generations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Official:
    """The whole model, and what the official code does around it."""

    def __init__(self, variant: Variant) -> None:
        torch.manual_seed(variant.seed)
        self.variant = variant
        self.lavida = variant.family == "lavida"
        self.source = FIXTURES / variant.family / "anyres"
        self.tokenizer = Tokenizer.from_file(str(self.source / "tokenizer.json"))
        self.side = variant.tower["image_size"] // variant.tower["patch_size"]
        shallow = dict(variant.tower) | {
            "num_hidden_layers": variant.tower["num_hidden_layers"] - 1
        }
        self.vision = SiglipVisionModel(SiglipVisionConfig(**shallow, vision_use_head=False)).eval()
        self.projector = nn.Sequential(
            nn.Linear(variant.tower["hidden_size"], variant.width),
            nn.GELU(),
            nn.Linear(variant.width, variant.width),
        )
        self.newline = nn.Parameter(torch.randn(variant.width) * 0.5)
        self.llama = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=variant.rows,
                hidden_size=variant.width,
                intermediate_size=variant.inner,
                num_hidden_layers=variant.layers,
                num_attention_heads=variant.heads,
                num_key_value_heads=variant.groups,
                rms_norm_eps=1e-5,
                rope_parameters={"rope_type": "default", "rope_theta": 5e5},
                tie_word_embeddings=variant.tied,
            )
        ).eval()
        for value in self.llama.parameters():
            nn.init.normal_(value, std=0.15)
        for value in self.vision.parameters():
            nn.init.normal_(value, std=0.15)

    @property
    def unpadded(self) -> bool:
        return "unpad" in self.variant.merge

    @property
    def mask_embedding(self) -> Tensor:
        return self.llama.model.embed_tokens.weight[MASK]

    def resolution(self, size: tuple[int, int]) -> tuple[int, int]:
        best, most, least = (0, 0), -1, 0
        for w, h in self.variant.pinpoints:
            scale = min(w / size[0], h / size[1])
            kept = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
            wasted = w * h - kept
            if kept > most or (kept == most and wasted < least):
                best, most, least = (w, h), kept, wasted
        return best

    def pixels(self, picture: Image.Image) -> Tensor:
        """[3, S, S], or [tiles, 3, S, S] with anyres."""
        side = self.variant.tower["image_size"]
        if self.variant.aspect.startswith("anyres"):
            wide, high = self.resolution(picture.size)
            fit = min(wide / picture.width, high / picture.height)
            inside = (
                min(math.ceil(picture.width * fit), wide),
                min(math.ceil(picture.height * fit), high),
            )
            canvas = Image.new("RGB", (wide, high))
            canvas.paste(picture.resize(inside), ((wide - inside[0]) // 2, (high - inside[1]) // 2))
            boxes = [(x, y) for y in range(0, high, side) for x in range(0, wide, side)]
            tiles = [canvas.crop((x, y, x + side, y + side)) for x, y in boxes]
            return torch.stack([normal(tile, side) for tile in [picture, *tiles]])
        if self.variant.aspect == "pad":
            longest = max(picture.size)
            square = Image.new("RGB", (longest, longest), (127, 127, 127))
            corner = (longest - picture.width) // 2, (longest - picture.height) // 2
            square.paste(picture, corner)
            picture = square
        return normal(picture, side)

    def features(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            tiles = pixels if pixels.ndim == 4 else pixels[None]
            states: Tensor = self.vision(tiles, output_hidden_states=True).hidden_states[-1]
        return states

    def pooled(self, tiles: Tensor) -> Tensor:
        grid = tiles.reshape(len(tiles), self.side, self.side, -1).permute(0, 3, 1, 2)
        half = math.ceil(self.side / 2)
        small = interpolate(grid, size=(half, half), mode="bilinear")
        return small.permute(0, 2, 3, 1).reshape(len(tiles), half * half, -1)

    def merged(self, tiles: Tensor, size: tuple[int, int]) -> Tensor:
        """Visual tokens of one projected picture in list form."""
        side = self.side
        if self.lavida:
            tiles, side = self.pooled(tiles), math.ceil(side / 2)
        if self.variant.merge == "flat":
            return tiles.flatten(0, 1)
        ends = self.newline[None]
        if len(tiles) == 1:
            return torch.cat([tiles[0], ends]) if self.unpadded else tiles[0]
        across, down = (n // self.variant.tower["image_size"] for n in self.resolution(size))
        grid = tiles.new_zeros(down * side, across * side, tiles.shape[-1])
        for number, tile in enumerate(tiles[1:]):
            y, x = divmod(number, across)
            block = tile.reshape(side, side, -1)
            grid[y * side : (y + 1) * side, x * side : (x + 1) * side] = block
        if not self.unpadded:
            return torch.cat([tiles[0], grid.flatten(0, 1)])
        high, wide = grid.shape[:2]
        if size[0] / size[1] > wide / high:
            cut = (high - int(size[1] * (wide / size[0]))) // 2
            grid = grid[cut : high - cut]
        else:
            cut = (wide - int(size[0] * (high / size[1]))) // 2
            grid = grid[:, cut : wide - cut]
        if self.variant.aspect.startswith("anyres_max_"):
            allowed = int(self.variant.aspect.removeprefix("anyres_max_"))
            high, wide = grid.shape[:2]
            times = math.sqrt(high * wide / (allowed * side**2))
            if times > 1.1:
                target = (int(high // times), int(wide // times))
                grid = interpolate(grid.permute(2, 0, 1)[None], target, mode="bilinear")[0]
                grid = grid.permute(1, 2, 0)
        rows = [torch.cat([row, ends]) for row in grid]
        return torch.cat([tiles[0], *rows])

    def words(self, ids: Sequence[int]) -> Tensor:
        rows: Tensor = self.llama.model.embed_tokens(torch.tensor(ids))
        return rows

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prompt_ids(self, prompt: str) -> list[int]:
        """-200 for pictures; each piece behind one loses its first id, in the first piece BOS."""
        pieces = [self.encode(piece) for piece in prompt.split("<image>")]
        ids = pieces[0]
        for piece in pieces[1:]:
            ids = [*ids, -200, *piece[1:]]
        return ids

    def inserted(
        self, ids: Sequence[int], pictures: Sequence[Tensor]
    ) -> tuple[Tensor, list[list[int]]]:
        rows: list[Tensor] = []
        spans: list[list[int]] = []
        length, left = 0, list(pictures)
        for token in ids:
            row = left.pop(0) if token == -200 else self.words([token])
            if token == -200:
                spans.append([length, length + len(row)])
            rows.append(row)
            length += len(row)
        return torch.cat(rows), spans

    def hidden(self, embeddings: Tensor, seen: Tensor | None = None) -> Tensor:
        """Of [B L D]; `seen` [B L L], all where there is none."""
        length = embeddings.shape[1]
        pairs = torch.ones(len(embeddings), length, length, dtype=torch.bool)
        mask = (pairs if seen is None else seen)[:, None]
        out = self.llama.model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
        states: Tensor = out.last_hidden_state
        return states

    def logits(self, embeddings: Tensor, begin: int, prefix: bool = False) -> Tensor:
        """[R V] behind a prompt of `begin` positions."""
        seen = None
        if prefix:
            at = torch.arange(len(embeddings))
            seen = ((at[:, None] >= begin) | (at[None] < begin))[None]
        scores: Tensor = self.llama.lm_head(self.hidden(embeddings[None], seen)[0, begin:])
        return scores

    def response(self, prompt: Tensor, prefix: bool = False) -> Tensor:
        masks = self.mask_embedding.expand(RESPONSE, -1)
        return self.logits(torch.cat([prompt, masks]), len(prompt), prefix)


def normal(picture: Image.Image, side: int) -> Tensor:
    values = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return torch.from_numpy((values / 255 - 0.5) / 0.5).permute(2, 0, 1)


@torch.no_grad()
def generated(model: Official, prompt: Tensor, told: Mapping[str, Any]) -> list[int]:
    """The greedy sampler of either family, position by position."""
    length = told["max_new_tokens" if model.lavida else "gen_length"]
    block = told["block_length"]
    blocks = length // block
    steps = length // blocks if model.lavida else told["steps"] // blocks
    if told.get("step_per_block"):
        steps = min(told["step_per_block"], block)
    elif told.get("step_ratio"):
        steps = int(steps * told["step_ratio"])
    tail = model.encode(told.get("generation_suffix", ""))
    stops = [model.encode(stop) for stop in told.get("stopping_criteria", [])]
    ids, stop = [MASK] * length, None
    for begin in range(0, length, block):
        if stop is not None and stop <= begin:
            break
        counts = commits(block, steps, told)
        for count in counts:
            if MASK not in ids[begin : begin + block]:
                break
            if stop is not None and MASK not in ids[:stop]:
                break
            scores = denoiser_scores(model, prompt, ids, tail, told)
            end = begin + block if stop is None else stop
            open_ = [n for n in range(end) if ids[n] == MASK]
            sure = {n: confidence(scores[n], told.get("remasking")) for n in open_}
            for n in sorted(open_, key=lambda n: -sure[n])[:count]:
                ids[n] = int(scores[n].argmax())
            for sought in stops:
                width = len(sought)
                found = [n for n in range(length) if ids[n : n + width] == sought]
                if found and (stop is None or found[0] < stop):
                    stop = found[0]
                if stop is not None:
                    break
    return ids[:stop] + tail


def denoiser_scores(
    model: Official,
    prompt: Tensor,
    ids: Sequence[int],
    tail: Sequence[int],
    told: Mapping[str, Any],
) -> Tensor:
    prefix = told.get("prefix_lm", False)
    written = [model.words(ids)] + ([model.words(tail)] if tail else [])
    scores = model.logits(torch.cat([prompt, *written]), len(prompt), prefix)
    if told.get("cfg_scale"):
        blank = model.mask_embedding.expand_as(prompt)
        free = model.logits(torch.cat([blank, *written]), len(prompt))
        scores = free + (told["cfg_scale"] + 1) * (scores - free)
    if not model.lavida:
        scores[:, [PAD, BOS, START, END]] = -torch.inf
    return scores.double()


def confidence(scores: Tensor, remasking: str | None) -> float:
    odds = scores.softmax(-1)
    if remasking == "margin":
        first, second = odds.sort(descending=True).values[:2].tolist()
        return float(first - second)
    if remasking == "entrophy":
        return float((odds * (odds + 1e-10).log()).sum())
    return float(odds.max())


def commits(masks: int, steps: int, told: Mapping[str, Any]) -> list[int]:
    curve = told.get("schedule")
    if curve is None:
        return [masks // steps + (step < masks % steps) for step in range(steps)]
    steps = min(steps, masks)
    t = torch.linspace(0, 1, steps + 1)
    if curve == "shift":
        shift = (told.get("schedule_kwargs") or {}).get("shift", 3)
        sigma = shift * t / (1 + (shift - 1) * t)
    elif curve == "cosine":
        sigma = 1 - 0.5 * (1 + torch.cos(math.pi * t))
    elif curve == "logit_normal":
        sigma = 0.5 * (1 + torch.erf((t / (1 - t)).log() / math.sqrt(2)))
    else:
        sigma = t
    spent = (sigma * masks).long().tolist()
    counts = [max(1, after - before) for before, after in pairwise(spent)]
    step = 0
    while sum(counts) > masks:
        if counts[step % steps] > 1:
            counts[step % steps] -= 1
        step += 1
    return counts[::-1]


def prompt_text(question: str) -> str:
    user = f"<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
    return f"{SYSTEM}{user}{ASSISTANT}"
