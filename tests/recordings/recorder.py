"""Writes a folder of recordings as the official code would leave it, by the literal model."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.recordings.literal import (
    ASSISTANT,
    BOS,
    END,
    EOT,
    PAD,
    RESPONSE,
    START,
    SYSTEM,
    TOWER,
    Official,
    Variant,
    generated,
    prompt_text,
)

CONVERSATIONS = [
    [("human", "<image>\nWhat is it?"), ("gpt", "A small cat.")],
    [("human", "<image>\nName two things."), ("gpt", "A dog and a ball.")],
]


class Recorder:
    """Fills inputs, expected tensors and meta of one variant."""

    def __init__(self, variant: Variant) -> None:
        self.model, self.variant = Official(variant), variant
        draw = np.random.default_rng(variant.seed)
        self.pictures = [
            Image.fromarray(draw.integers(0, 256, (h, w, 3), dtype=np.uint8))
            for w, h in variant.sizes
        ]
        self.pixels = [self.model.pixels(picture) for picture in self.pictures]
        self.inputs: dict[str, Tensor] = {"q": torch.randn(RESPONSE, variant.rows)}
        self.expected: dict[str, Tensor] = {}
        self.meta: dict[str, Any] = {"cases": {}, "generation": {}, "training": {}}

    def write(self, folder: Path) -> Path:
        """Write the whole folder."""
        folder.mkdir()
        for number, (picture, pixels) in enumerate(zip(self.pictures, self.pixels, strict=True)):
            self.inputs[f"raw_image_{number}"] = torch.from_numpy(np.array(picture))
            self.inputs[f"pixel_values_{number}"] = pixels
        self.case("one_image", "<image>\nWhat is shown?", [0])
        self.case("two_images", "<image> <image>\nCompare them.", [0, 1])
        if not self.variant.aspect.startswith("anyres"):
            self.case("two_images_tensor4d", "<image> <image>\nCompare them.", [0, 1], False)
        for name, told in self.variant.generations.items():
            prompt = self.prompts[told["case"]]
            self.meta["generation"][name] = told
            self.expected[f"gen.{name}"] = torch.tensor([generated(self.model, prompt, told)])
        self.train()
        self.checkpoint(folder)
        save_file(
            {k: v.contiguous() for k, v in self.inputs.items()}, folder / "inputs.safetensors"
        )
        expected = {name: value.detach().clone() for name, value in self.expected.items()}
        save_file(expected, folder / "expected.safetensors")
        (folder / "meta.json").write_text(json.dumps(self.meta))
        return folder

    @property
    def prompts(self) -> dict[str, Tensor]:
        return {
            name.removesuffix(".inputs_embeds"): value[0].detach()
            for name, value in self.expected.items()
            if name.endswith(".inputs_embeds")
        }

    def case(self, name: str, question: str, indices: list[int], as_list: bool = True) -> None:
        """One prompt: what the pictures become, logits and gradients."""
        model, text = self.model, prompt_text(question)
        features = [model.features(self.pixels[i]) for i in indices]
        projected = [model.projector(tiles) for tiles in features]
        sizes = [self.pictures[i].size for i in indices]
        visual = [
            model.merged(tiles, size) if as_list else tiles[0]
            for tiles, size in zip(projected, sizes, strict=True)
        ]
        for tokens in visual:
            tokens.retain_grad()
        ids = model.prompt_ids(text)
        prompt, spans = model.inserted(ids, visual)
        rows = torch.zeros(len(prompt), dtype=torch.bool)
        for start, end in spans:
            rows[start:end] = True
        hidden = torch.where(rows[:, None], model.mask_embedding, prompt)
        found = {
            "tower_features": torch.cat(features),
            "projected": torch.cat(projected),
            "inputs_embeds": prompt[None],
            "response_logits": model.response(prompt),
            "response_logits_visual_emask": model.response(hidden),
        } | {f"visual_{n}": tokens for n, tokens in enumerate(visual)}
        if model.lavida:
            found["response_logits_prefix_lm"] = model.response(prompt, prefix=True)
            if as_list:
                found["pooled"] = model.pooled(torch.cat(projected))
        (self.inputs["q"] * found["response_logits"]).sum().backward()
        found["grad_visual"] = torch.cat([_grad(tokens) for tokens in visual])
        found |= {f"grad_q.{key}": _grad(value) for key, value in self.parameters().items()}
        self.clear()
        self.expected |= {f"{name}.{key}": value for key, value in found.items()}
        self.inputs[f"{name}.input_ids"] = torch.tensor([ids])
        self.meta["cases"][name] = {
            "prompt": text,
            "image_index": indices,
            "spans": spans,
            "response_len": RESPONSE,
        }

    def parameters(self) -> dict[str, Tensor]:
        named = {f"model.mm_projector.{n}": v for n, v in self.model.projector.named_parameters()}
        return named | ({"model.image_newline": self.model.newline} if self.model.unpadded else {})

    def clear(self) -> None:
        for part in (self.model.projector, self.model.llama):
            part.zero_grad()
        self.model.newline.grad = None

    def train(self) -> None:
        """A batch of both conversations, padded, with fixed times and draws."""
        model, rows = self.model, []
        for number, turns in enumerate(CONVERSATIONS):
            ids, labels = self.lesson(turns)
            tiles = model.projector(model.features(self.pixels[number]))
            rows.append((ids, labels, model.merged(tiles, self.pictures[number].size)))
        longest = max(len(ids) for ids, _, _ in rows) + (5 if model.lavida else 0)
        embedded, targets = [], []
        for ids, labels, visual in rows:
            pads = longest - len(ids)
            merged, ((start, end),) = model.inserted([*ids, *[PAD] * pads], [visual])
            spread = labels[:start] + [-100] * (end - start) + labels[start + 1 :] + [PAD] * pads
            embedded.append(merged)
            targets.append(torch.tensor(spread))
        clean = nn.utils.rnn.pad_sequence(embedded, batch_first=True)
        target = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
        t, u = torch.rand(len(rows)), torch.rand(target.shape)
        p = 0.999 * t + 0.001
        self.inputs |= {"train.batch.t": t, "train.batch.u": u}
        text = [torch.tensor([*ids, *[PAD] * (longest - len(ids))]) for ids, _, _ in rows]
        self.inputs["train.batch.input_ids"] = torch.stack(text)
        told: dict[str, Any] = {"samples": [0, 1], "images": [0, 1]}
        told["prefix_lm" if model.lavida else "use_conversation_mask"] = False
        self.meta["training"] = {
            "batch": told,
            "conversations": [
                [{"from": role, "value": said} for role, said in turns] for turns in CONVERSATIONS
            ],
        }
        loss = self.plain_loss if model.lavida else self.weighted_loss
        found = loss(clean, target, p, u)
        found["loss"].backward()
        found |= {
            f"grad.{key}": _grad(value)
            for key, value in self.parameters().items()
            if "projector" in key
        }
        self.clear()
        self.expected |= {f"train.batch.{key}": value for key, value in found.items()}

    def weighted_loss(
        self, clean: Tensor, target: Tensor, p: Tensor, u: Tensor
    ) -> dict[str, Tensor]:
        masked = (u < p[:, None]) & (target != -100)
        noisy = torch.where(masked[..., None], self.model.mask_embedding, clean)
        logits = self.model.llama.lm_head(self.model.hidden(noisy))
        loss = torch.zeros(())
        for b, n in masked.nonzero().tolist():
            surprise = cross_entropy(logits[b, n][None], target[b, n][None])
            loss = loss + surprise / p[b] / (target[b] != -100).sum() / len(target)
        return {
            "inputs_embeds_clean": clean,
            "merged_labels": target,
            "masked": masked,
            "p_mask": p,
            "loss": loss,
        }

    def plain_loss(self, clean: Tensor, target: Tensor, p: Tensor, u: Tensor) -> dict[str, Tensor]:
        drawn = u <= torch.maximum(p, u.min(dim=1).values)[:, None]
        learned = target != -100
        masked = torch.cat([drawn & learned, ~drawn & learned])
        noisy = torch.where(masked[..., None], self.model.mask_embedding, torch.cat([clean, clean]))
        logits = self.model.llama.lm_head(self.model.hidden(noisy))
        labels = torch.cat([target, target])
        return {
            "target_positions": learned,
            "masked": masked,
            "p_mask": p[:, None],
            "loss": cross_entropy(logits[masked], labels[masked]),
        }

    def lesson(self, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[int]]:
        """Ids and labels of a conversation; every piece of a training text is kept whole."""
        model, ids, labels = self.model, [], list[int]()
        said = [("system", SYSTEM)] + [
            (role, f"<|start_header_id|>{'user' if role == 'human' else 'assistant'}"
                   f"<|end_header_id|>\n\n{text}<|eot_id|>")
            for role, text in turns
        ]  # fmt: skip
        for role, text in said:
            pieces = [model.encode(piece) for piece in text.split("<image>")]
            message = pieces[0] + [n for piece in pieces[1:] for n in (-200, *piece)]
            silent = 0 if role == "gpt" else len(message)
            if model.lavida and role == "gpt":
                silent = len(model.encode(ASSISTANT))
            heard = [-100] * silent + message[silent:]
            if not model.lavida and role != "gpt":
                heard = [n if n in (BOS, START, END, EOT) else -100 for n in message]
            ids += message
            labels += heard
        return ids, labels

    def checkpoint(self, folder: Path) -> None:
        """Weights and configs in the official layout, the tokenizer of the given recording."""
        for path in self.model.source.glob("*.json"):
            if path.name not in {"meta.json", "config.json", "vision_config.json"}:
                shutil.copy(path, folder / path.name)
        vision, variant = self.model.vision.state_dict(), self.variant
        weights = {TOWER + key.removeprefix("vision_model."): v for key, v in vision.items()}
        for key, value in self.model.llama.state_dict().items():
            if key != "lm_head.weight" or not variant.tied:
                weights[_llada(key) if self.model.lavida else key] = value
        weights |= {key: value.data for key, value in self.parameters().items()}
        save_file(
            {k: v.clone().contiguous() for k, v in weights.items()}, folder / "model.safetensors"
        )
        config = json.loads((self.model.source / "config.json").read_text())
        names = ("d_model", "mlp_hidden_size", "n_layers", "n_heads", "n_kv_heads",
                 "embedding_size", "weight_tying") if self.model.lavida else (
                 "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                 "num_key_value_heads", "vocab_size", "tie_word_embeddings")  # fmt: skip
        sizes = (variant.width, variant.inner, variant.layers, variant.heads, variant.groups,
                 variant.rows, variant.tied)  # fmt: skip
        config |= dict(zip(names, sizes, strict=True)) | {
            "mm_hidden_size": variant.tower["hidden_size"]
        }
        config |= {"image_aspect_ratio": variant.aspect, "mm_patch_merge_type": variant.merge}
        if variant.pinpoints is not None:
            config["image_grid_pinpoints"] = variant.pinpoints
        (folder / "config.json").write_text(json.dumps(config))
        told = json.loads((self.model.source / "vision_config.json").read_text())
        (folder / "vision_config.json").write_text(json.dumps(told | dict(variant.tower)))


def _grad(value: Tensor) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad.clone()


def _llada(name: str) -> str:
    """HF Llama's name in the words of LLaDA's own code."""
    for theirs, ours in (
        ("model.embed_tokens", "model.transformer.wte"),
        ("model.layers", "model.transformer.blocks"),
        ("model.norm", "model.transformer.ln_f"),
        ("lm_head", "model.transformer.ff_out"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ff_norm"),
        ("self_attn.o_proj", "attn_out"),
        ("self_attn.", ""),
        ("mlp.gate_proj", "ff_proj"),
        ("mlp.up_proj", "up_proj"),
        ("mlp.down_proj", "ff_out"),
    ):
        name = name.replace(theirs, ours)
    return name
