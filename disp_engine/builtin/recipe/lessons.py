"""Batches for stage 2: conversations about scenes, with commands in the text or the picture."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from disp_engine.builtin.instructions import DESCRIBE, ask, draw_task
from disp_engine.builtin.recipe.tokenizer import SYSTEM, special_id
from disp_engine.builtin.world import Scene
from disp_engine.records import IGNORE


@dataclass(frozen=True)
class Lesson:
    """One conversation as token ids: `before` the picture, `after` it, and labels of `after`.

    `command` holds the ids that overwrite visual tokens, empty for none.
    """

    after: list[int]
    labels: list[int]
    command: list[int]


@dataclass(frozen=True)
class LessonBatch:
    """B lessons right-padded to one length.

    `after`, `labels` [B R]; `overwrite` [B Lv]: the id that stands at a visual position
    instead of the picture, or -1; `masked` [B Lv]: visual positions that show the mask.
    """

    rows: Int[np.ndarray, " B"]
    after: Int[Tensor, "B R"]
    labels: Int[Tensor, "B R"]
    overwrite: Int[Tensor, "B Lv"]
    masked: Bool[Tensor, "B Lv"]
    times: Float[Tensor, "B 1"]


class Teacher:
    """Draws lessons from scenes.

    `in_picture`: share of the commands that stand inside the visual span; `second_turn`: share
    of conversations with a second question; `hidden`: share of rows with masked visual tokens,
    `hidden_most` the largest part of them masked.
    """

    in_picture = 0.7
    second_turn = 0.12
    hidden = 0.5
    hidden_most = 0.7

    def __init__(self, tokenizer: Tokenizer, visual_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.visual_tokens = visual_tokens
        self.pad = special_id(tokenizer, "<|endoftext|>")
        opening = "<|start_header_id|>user<|end_header_id|>\n\n"
        self.before = self._ids(f"<|startoftext|>{_message('system', SYSTEM)}{opening}")

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def lesson(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """One conversation about a scene."""
        task = draw_task(scene, rng)
        prompt, command = task.prompt, ""
        if task.command and rng.random() < self.in_picture:
            command = task.keyword if task.keyword and rng.random() < 0.5 else task.command
            prompt = str(rng.choice(DESCRIBE)) if rng.random() < 0.85 else task.prompt
        after = self._ids(f"\n{prompt}<|eot_id|>")
        labels = [IGNORE] * len(after)
        self._answer(after, labels, task.response)
        if rng.random() < self.second_turn:
            second = ask(scene, rng)
            question = self._ids(_message("user", second.prompt))
            after += question
            labels += [IGNORE] * len(question)
            self._answer(after, labels, second.response)
        return Lesson(after, labels, self._ids(command) if command else [])

    def _answer(self, after: list[int], labels: list[int], response: str) -> None:
        answer = self._ids(_message("assistant", response))
        after += answer
        labels += answer

    def batch(self, scenes: list[Scene], size: int, rng: np.random.Generator) -> LessonBatch:
        """Draw `size` lessons; padding is a target, as in the official collator."""
        rows = rng.integers(len(scenes), size=size)
        lessons = [self.lesson(scenes[row], rng) for row in rows]
        length = max(len(lesson.after) for lesson in lessons) + int(rng.integers(0, 12))
        after = torch.full((size, length), self.pad)
        labels = torch.full((size, length), self.pad)
        overwrite = torch.full((size, self.visual_tokens), -1)
        masked = torch.zeros(size, self.visual_tokens, dtype=torch.bool)
        for i, lesson in enumerate(lessons):
            after[i, : len(lesson.after)] = torch.tensor(lesson.after)
            labels[i, : len(lesson.labels)] = torch.tensor(lesson.labels)
            if rng.random() < self.hidden:
                share = rng.uniform(0, self.hidden_most)
                masked[i] = torch.from_numpy(rng.random(self.visual_tokens) < share)
            if lesson.command:
                places = self._places(len(lesson.command), rng)
                overwrite[i, places] = torch.tensor(lesson.command)
        times = torch.from_numpy(rng.random((size, 1))).float()
        return LessonBatch(rows, after, labels, overwrite, masked, times)

    def _places(self, count: int, rng: np.random.Generator) -> Tensor:
        if rng.random() < 0.5:
            start = int(rng.integers(self.visual_tokens - count + 1))
            return torch.arange(start, start + count)
        return torch.from_numpy(np.sort(rng.choice(self.visual_tokens, count, replace=False)))


def _message(role: str, text: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"
