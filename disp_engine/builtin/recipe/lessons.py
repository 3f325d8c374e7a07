"""Batches for stage 2: conversations about scenes, with commands in the text or the picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.builtin.instructions import ask, describe, draw_task
from disp_engine.builtin.world import Scene
from disp_engine.models.llava.chat import ChatPrompter
from disp_engine.records import IGNORE, IMAGE_TOKEN, Tokens, Turn


@runtime_checkable
class Words(Protocol):
    """What a teacher needs of a family's chat: labelled conversations, bare texts, padding."""

    @property
    def pad(self) -> int: ...

    def example(self, turns: Sequence[Turn]) -> Tokens: ...

    def encode(self, text: str) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Lesson:
    """One conversation as token ids without the picture, and its labels.

    `command` holds the ids that overwrite visual tokens, empty for none.
    """

    ids: list[int]
    labels: list[int]
    command: list[int]


@dataclass(frozen=True)
class LessonBatch:
    """B lessons right-padded to one length.

    `ids`, `labels` [B R]: the text, the picture left out; `overwrite` [B Lv]: the id that stands
    at a visual position instead of the picture, or -1; `masked` [B Lv]: visual positions that
    show the mask; `times` [B 1] of the forward process.
    """

    rows: Int[np.ndarray, " B"]
    ids: Int[Tensor, "B R"]
    labels: Int[Tensor, "B R"]
    overwrite: Int[Tensor, "B Lv"]
    masked: Bool[Tensor, "B Lv"]
    times: Float[Tensor, "B 1"]

    def to(self, device: torch.device) -> "LessonBatch":
        """The same batch with its tensors on a device."""
        ids, labels = self.ids.to(device), self.labels.to(device)
        overwrite, masked = self.overwrite.to(device), self.masked.to(device)
        return LessonBatch(self.rows, ids, labels, overwrite, masked, self.times.to(device))


W = TypeVar("W", bound=Words)


class Teacher(Generic[W]):
    """Draws lessons from scenes.

    `in_picture`: share of the commands that stand inside the visual span; of these,
    `of_something_else`: share whose text asks for what the scene shows, and `of_a_question`:
    share of those that ask a question and not for the caption; `second_turn`: share
    of conversations with a second question; `hidden`: share of rows with masked visual tokens,
    `hidden_most` the largest part of them masked; `bare`: share without the line break after
    the picture, which the family has in training texts and drops from prompts.
    """

    in_picture = 0.7
    of_something_else = 0.85
    of_a_question = 0.3
    second_turn = 0.1
    hidden = 0.5
    hidden_most = 0.7
    bare = 0.5

    def __init__(self, prompter: W, visual_tokens: int) -> None:
        self.prompter = prompter
        self.visual_tokens = visual_tokens
        example = prompter.example([Turn("human", "<image>"), Turn("gpt", "")])
        self.image_at = example.ids.tolist().index(IMAGE_TOKEN)

    def lesson(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """One conversation about a scene, with the labels of the family's fine-tuning."""
        task = draw_task(scene, rng)
        prompt, response, command = task.prompt, task.response, ""
        if task.command and rng.random() < self.in_picture:
            command = task.keyword if task.keyword and rng.random() < 0.5 else task.command
            if rng.random() < self.of_something_else:
                asked = (ask if rng.random() < self.of_a_question else describe)(scene, rng)
                prompt, response = asked.prompt, task.obey(asked.response)
        turns = [Turn("human", f"<image>\n{prompt}"), Turn("gpt", response)]
        if rng.random() < self.second_turn:
            second = ask(scene, rng)
            turns += [Turn("human", second.prompt), Turn("gpt", second.response)]
        return self._without_picture(turns, command, bare=rng.random() < self.bare)

    def _without_picture(self, turns: list[Turn], command: str, *, bare: bool) -> Lesson:
        example = self.prompter.example(turns)
        if example.labels is None:
            raise ValueError("a training example has labels")
        gone = slice(self.image_at, self.image_at + 1 + bare)
        ids, labels = example.ids.tolist(), example.labels.tolist()
        del ids[gone], labels[gone]
        return Lesson(ids, labels, list(self.prompter.encode(command)) if command else [])

    padding_label: int | None = None
    """Label of padding; None is the padding itself, a target as in the official collator."""

    def batch(self, scenes: list[Scene], size: int, rng: np.random.Generator) -> LessonBatch:
        """Draw `size` lessons, padded to one length and a little beyond."""
        rows = rng.integers(len(scenes), size=size)
        lessons = [self.lesson(scenes[row], rng) for row in rows]
        length = max(len(lesson.ids) for lesson in lessons) + int(rng.integers(0, 12))
        ids = torch.full((size, length), self.prompter.pad)
        padding = self.prompter.pad if self.padding_label is None else self.padding_label
        labels = torch.full((size, length), padding)
        overwrite = torch.full((size, self.visual_tokens), -1)
        masked = torch.zeros(size, self.visual_tokens, dtype=torch.bool)
        for i, lesson in enumerate(lessons):
            ids[i, : len(lesson.ids)] = torch.tensor(lesson.ids)
            labels[i, : len(lesson.labels)] = torch.tensor(lesson.labels)
            if rng.random() < self.hidden:
                share = rng.uniform(0, self.hidden_most)
                masked[i] = torch.from_numpy(rng.random(self.visual_tokens) < share)
            if lesson.command:
                places = self._places(len(lesson.command), rng)
                overwrite[i, places] = torch.tensor(lesson.command)
        times = torch.from_numpy(rng.random((size, 1))).float()
        return LessonBatch(rows, ids, labels, overwrite, masked, times)

    def _places(self, count: int, rng: np.random.Generator) -> Tensor:
        if rng.random() < 0.5:
            start = int(rng.integers(self.visual_tokens - count + 1))
            return torch.arange(start, start + count)
        return torch.from_numpy(np.sort(rng.choice(self.visual_tokens, count, replace=False)))


def easy(labels: Int[Tensor, " M"], prompter: ChatPrompter) -> Bool[Tensor, " M"]:
    """Mark the targets that the chat format alone determines: padding and headers."""
    format_only = (prompter.pad, prompter.bos, prompter.start_header, prompter.end_header)
    return torch.isin(labels, torch.tensor(format_only).to(labels)) & (labels != IGNORE)
