"""What every guard does with questions, and what it tells of its answers.

A guard looks at a question (and perhaps at the model's first answer to it) and rules what the model
is shown in its place; the model then says the answer. Letters: B questions, K columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from PIL.Image import Image
from torch import Tensor

from disp_engine.errors import SampleError
from disp_engine.guards.respondent import is_derived, respondent_of
from disp_engine.interfaces import PromptsRead, VisualModel
from disp_engine.records import Embedded, Said, Turn
from disp_engine.responses import collected


@dataclass(frozen=True)
class Question:
    """A conversation that waits for an answer, and the pictures of its `<image>` marks."""

    turns: tuple[Turn, ...]
    images: tuple[Image, ...]


@dataclass(frozen=True)
class Cell:
    """One visual token by its place: row and column of a tile of `rows` x `columns` tokens."""

    picture: int
    tile: int
    row: int
    column: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Verdict:
    """What a guard thinks of a question.

    `flagged` None: the guard does not say whether there is a trigger. `score` grows with the
    suspicion. `removed` visual tokens were kept from the model.
    """

    flagged: bool | None = None
    score: float | None = None
    removed: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class Ruling:
    """What becomes of one question.

    `said` is its answer where there is one already; else the model answers `shown`, with the
    positions `hidden` hidden from the layers that the guard names.
    """

    verdict: Verdict
    shown: Embedded
    said: Int[Tensor, " T"] | None = None
    hidden: tuple[int, ...] = ()


@dataclass(frozen=True)
class Judged:
    """Rulings of a batch; `reading` has read what is shown.

    Where something is hidden it is of use only if that was `hidden` from it too.
    """

    rulings: tuple[Ruling, ...]
    reading: PromptsRead | None = None
    hidden: bool = False


@dataclass(frozen=True)
class Guarded:
    """An answer and the guard's verdict on its question; both counted in tokens."""

    text: str
    verdict: Verdict
    asked: int = 0
    answered: int = 0


@dataclass(frozen=True)
class Piece:
    """What a step adds to an answer that then has `answered` tokens."""

    text: str
    answered: int


@dataclass(frozen=True)
class Streamed:
    """A verdict on a question of `asked` tokens, and the answer's pieces as they are said."""

    verdict: Verdict
    asked: int
    pieces: Iterator[Piece]


class Guard(ABC):
    """Guards the answers of one model; `first_hidden_layer` is where what is hidden begins."""

    first_hidden_layer: int = 0
    as_published: ClassVar[bool] = True
    """False where a form for answers in words had to be found, or something left open is chosen."""

    def __init__(self, model: VisualModel) -> None:
        self.model, self.respondent = model, respondent_of(model)

    @property
    def derived(self) -> bool:
        """Whether this is not the published form of the guard."""
        return not self.as_published or is_derived(self.model)

    @abstractmethod
    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Rule what becomes of each prompt; answers may take `length` tokens."""

    def prepared(self, question: Question) -> Question:
        """The question as the model is to read it; guards of pictures change them here."""
        return question

    def rule(self, questions: Sequence[Question], length: int) -> Judged:
        """Rule what becomes of each question, by what the model reads of it."""
        return self.judge(self._embedded(questions), length)

    def answer(self, questions: Sequence[Question], length: int) -> list[Guarded]:
        """Answer a batch of questions."""
        return self._spoken(self.rule(questions, length), length)

    def answer_prompts(self, prompts: Sequence[Embedded], length: int) -> list[Guarded]:
        """Answer what is embedded already, for guards that work on visual tokens."""
        return self._spoken(self.judge(prompts, length), length)

    def _spoken(self, judged: Judged, length: int) -> list[Guarded]:
        answers = [ruling.said for ruling in judged.rulings]
        open_rows = [row for row, said in enumerate(answers) if said is None]
        if open_rows:
            spoken = collected(self._steps(judged, open_rows, length), len(open_rows))
            for row, ids in zip(open_rows, spoken, strict=True):
                answers[row] = ids
        return [
            Guarded(self.model.text(ids), ruling.verdict, len(ruling.shown.embeddings), len(ids))
            for ids, ruling in zip(answers, judged.rulings, strict=True)
            if ids is not None
        ]

    def stream(self, question: Question, length: int) -> Streamed:
        """Answer one question piece by piece; the verdict is there before the first piece."""
        judged = self.rule([question], length)
        (ruling,) = judged.rulings
        asked = len(ruling.shown.embeddings)
        if ruling.said is not None:
            whole = Piece(self.model.text(ruling.said), len(ruling.said))
            return Streamed(ruling.verdict, asked, iter([whole]))
        return Streamed(ruling.verdict, asked, self._pieces(self._steps(judged, [0], length)))

    def _embedded(self, questions: Sequence[Question]) -> list[Embedded]:
        return embedded(self.model, [self.prepared(question) for question in questions])

    def _steps(self, judged: Judged, rows: Sequence[int], length: int) -> Iterator[Said]:
        """Say the answers of some rows, what is hidden from them hidden in every step."""
        chosen = [judged.rulings[row] for row in rows]
        shown = [ruling.shown for ruling in chosen]
        reading = judged.reading if len(rows) == len(judged.rulings) else None
        columns = hidden_columns(chosen)
        if columns is None:
            reading = self.respondent.read(shown) if reading is None else reading
            yield from self.respondent.say(reading, length)
            return
        columns = columns.to(self.model.device)
        if reading is None or not judged.hidden:
            with self.respondent.hiding(columns, self.first_hidden_layer):
                reading = self.respondent.read(shown)
        steps = self.respondent.say(reading, length)
        while True:  # between two steps others may run in this thread: nothing stays hidden then
            with self.respondent.hiding(columns, self.first_hidden_layer):
                said = next(steps, None)
            if said is None:
                return
            yield said

    def _pieces(self, steps: Iterator[Said]) -> Iterator[Piece]:
        """What each step adds to the text; half a character waits for its other half."""
        ids: list[Tensor] = []
        told = ""
        for said in steps:
            if not bool(said.alive[0]):
                break
            ids.append(said.ids)
            text = self.model.text(torch.cat(ids))
            if text.startswith(told) and not text.endswith("\ufffd"):
                yield Piece(text[len(told) :], len(ids))
                told = text
        text = self.model.text(torch.cat(ids)) if ids else ""
        if len(text) > len(told):
            yield Piece(text[len(told) :], len(ids))


@torch.no_grad()
def embedded(model: VisualModel, questions: Sequence[Question]) -> list[Embedded]:
    """Questions as the model reads them, to the last bit as it would read them alone."""
    return [
        model.embed(model.tokenise_prompt(one.turns), model.encode_images(one.images))
        for one in questions
    ]


def zeroed(prompt: Embedded, tokens: Sequence[int]) -> Embedded:
    """The prompt with zeros in place of some visual tokens, behind the projector."""
    embeddings = prompt.embeddings.clone()
    embeddings[list(tokens)] = 0
    return replace(prompt, embeddings=embeddings)


def cells(prompt: Embedded, tokens: Sequence[int]) -> tuple[Cell, ...]:
    """Where tokens, given by their positions in the prompt, stand in their pictures."""
    places: dict[int, Cell] = {}
    tiles: dict[int, int] = {}
    for grid in prompt.grids:
        picture = next(n for n, (a, b) in enumerate(prompt.spans) if a <= grid.start < b)
        tile = tiles[picture] = tiles.get(picture, -1) + 1
        for number, token in enumerate(grid.tokens()):
            row, column = divmod(number, grid.columns)
            places[token] = Cell(picture, tile, row, column, grid.rows, grid.columns)
    return tuple(places[token] for token in tokens)


def visual_tokens(prompt: Embedded) -> list[int]:
    """Positions of the visual tokens that show a place in a picture."""
    found = [token for grid in prompt.grids for token in grid.tokens()]
    if not found:
        raise SampleError("The question has no picture.")
    return found


def hidden_columns(rulings: Sequence[Ruling]) -> Bool[Tensor, "B K"] | None:
    """Hidden columns of a batch, or None where nothing is hidden."""
    if not any(ruling.hidden for ruling in rulings):
        return None
    longest = max(len(ruling.shown.embeddings) for ruling in rulings)
    columns = torch.zeros(len(rulings), longest, dtype=torch.bool)
    for row, ruling in enumerate(rulings):
        before = longest - len(ruling.shown.embeddings)
        columns[row, [before + token for token in ruling.hidden]] = True
    return columns
