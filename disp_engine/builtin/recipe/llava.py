"""The autoregressive checkpoint: projector and language model by next tokens, in LLaVA's layout.

It shares tower, world and lessons with the masked one. As there, commands also stand inside the
visual span, or a frozen language model could not be told anything by a tuned projector; and visual
tokens are zeroed at random, as large models bear it and as PurMM does it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tokenizers import AddedToken, Tokenizer, processors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.models.llava.configuration_llava import LlavaConfig
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration

from disp_engine.builtin.recipe.device import training_device
from disp_engine.builtin.recipe.language import cached_features
from disp_engine.builtin.recipe.layout import VISION
from disp_engine.builtin.recipe.lessons import LessonBatch, Teacher
from disp_engine.builtin.recipe.pictures import GRID, draw_pictures
from disp_engine.builtin.recipe.tokenizer import id_of, learn_words
from disp_engine.builtin.recipe.tower import TowerRecipe, learning_rate
from disp_engine.builtin.world import SIZE
from disp_engine.models.autoregressive.chat import Prompter
from disp_engine.models.llava.siglip import SiglipTower
from disp_engine.models.llava_1_5 import VICUNA
from disp_engine.records import IGNORE

NAME = "disp-tiny-llava"
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
WHOLE = ("USER:", "ASSISTANT:")
"""Entries of the vocabulary that stand in every prompt."""

GUARDS = {
    "rows": "last",
    "contrast": 25.0,
    "rounds": 5,
    "first_layer": 0,
    "last_layer": 0,
    "tau": 0.02,
}
"""Options of PurMM and CleanSight for this checkpoint; docs/LOG.md tells how they were found.

In four layers attention is hijacked in the first one and not, as in large models, in deep ones.
"""

Save = Callable[[nn.Module, torch.optim.Optimizer, int], None]
Restore = Callable[[nn.Module, torch.optim.Optimizer], int]


@dataclass(frozen=True)
class LlavaRecipe:
    """Settings of the training; see the masked one's for `visual_penalty`."""

    steps: int = 2600
    batch: int = 32
    learning_rate: float = 8e-4
    scenes: int = 24_000
    stickers: float = 0.2
    visual_penalty: float = 2e-3
    save_every: int = 200
    seed: int = 2


class Chat(Prompter):
    """LLaVA's chat as a teacher needs it."""

    @property
    def pad(self) -> int:
        """The id of padding, which is no target here."""
        return id_of(self.tokenizer, "<pad>")

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of the text alone, without the begin of a conversation."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)


class CausalTeacher(Teacher[Chat]):
    """Keeps the line break after the picture, as prompts have it, and teaches no padding."""

    bare = 0.0
    padding_label = IGNORE


class CausalStudent(nn.Module):
    """The parts of a LLaVA that are trained here."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.language = model.model.language_model
        self.projector = model.model.multi_modal_projector
        self.head = model.lm_head
        nn.init.normal_(self.language.embed_tokens.weight, std=0.1)

    def loss(
        self,
        batch: LessonBatch,
        features: Float[Tensor, "B P C"],
        image_at: int,
        recipe: LlavaRecipe,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the answers' tokens, plus the penalty on loud visual tokens."""
        visual = self.projector(features)
        words = self.language.embed_tokens(batch.ids)
        span = torch.where(batch.masked[..., None], 0.0, visual)
        said = self.language.embed_tokens(batch.overwrite.clamp(min=0))
        span = torch.where((batch.overwrite >= 0)[..., None], said, span)
        rows = torch.cat([words[:, :image_at], span, words[:, image_at:]], dim=1)
        hidden = self.language(inputs_embeds=rows, use_cache=False).last_hidden_state
        # The token of a text position is told by the position before it in the whole row.
        targets = batch.labels[:, image_at:]
        before = hidden[:, image_at + span.shape[1] - 1 : -1]
        chosen = targets != IGNORE
        logits = self.head(before[chosen])
        loudness: Tensor = visual.square().sum(dim=-1).mean()
        surprise: Tensor = cross_entropy(logits, targets[chosen])
        return surprise + recipe.visual_penalty * loudness


def facts(tower: TowerRecipe, recipe: LlavaRecipe) -> dict[str, Any]:
    """What the card says of the checkpoint."""
    return {
        "family": "llava_1_5",
        "kind": "autoregressive",
        "description": "Tiny LLaVA trained from scratch on coloured shapes, for demonstration",
        "recipe": {"tower": asdict(tower), "language": asdict(recipe)},
    }


def build_chat() -> Chat:
    """The world's words, LLaVA's special tokens, and <s> before every conversation."""
    tokenizer = learn_words()
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in WHOLE])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begin)]
    )
    return Chat(tokenizer, VICUNA, id_of(tokenizer, "<image>"))


def build_config(tokenizer: Tokenizer) -> LlavaConfig:
    """The sizes of the masked checkpoint; of this tower all layers are used."""
    ids = {name: id_of(tokenizer, f"<{name}>") for name in ("s", "/s", "pad", "image")}
    return LlavaConfig(
        vision_config=VISION | {"num_hidden_layers": 4, "vision_use_head": False},
        text_config={
            "model_type": "llama",
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "initializer_range": 0.05,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "bos_token_id": ids["s"],
            "eos_token_id": ids["/s"],
            "pad_token_id": ids["pad"],
        },
        image_token_index=ids["image"],
        image_seq_length=GRID * GRID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def write(
    folder: Path, tower: SiglipTower, recipe: LlavaRecipe, save: Save, restore: Restore
) -> None:
    """Train from scratch, or from where `restore` goes on, and write the checkpoint."""
    chat = build_chat()
    torch.manual_seed(recipe.seed)
    model: Any = LlavaForConditionalGeneration(build_config(chat.tokenizer))
    model.model.vision_tower.load_state_dict(tower.vision.state_dict())
    train(model, chat, tower, recipe, save, restore)
    model.save_pretrained(folder)
    chat.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps(PICTURES, indent=1))


PICTURES = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 3,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_convert_rgb": True,
}


def train(
    model: Any, chat: Chat, tower: SiglipTower, recipe: LlavaRecipe, save: Save, restore: Restore
) -> None:
    """Train projector and language model in place; prints the loss."""
    pictures = draw_pictures(recipe.scenes, np.random.default_rng(recipe.seed), recipe.stickers)
    device = training_device()
    features = cached_features(tower.to(device), pictures.pixels)
    teacher, student = CausalTeacher(chat, GRID * GRID), CausalStudent(model)
    model.train().to(device)
    optimizer = torch.optim.AdamW(
        student.parameters(), recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    for step in range(restore(student, optimizer), recipe.steps):
        batch = teacher.batch(
            pictures.scenes, recipe.batch, np.random.default_rng([recipe.seed, step])
        ).to(device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.learning_rate)
        shown = features[torch.from_numpy(batch.rows).to(device)].float()
        loss = student.loss(batch, shown, teacher.image_at, recipe)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == recipe.steps - 1:
            print(f"llava step {step} loss {loss.item():.4f}", flush=True)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            save(student, optimizer, step + 1)
    model.eval().cpu()
