"""Conversations to token ids by a family's chat format.

A folder's own template is a program, and programs of a folder are never run; the formats stand in
the families as data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

from disp_engine.errors import InvalidModelError, SampleError
from disp_engine.models.checkpoint import refuse_unreadable
from disp_engine.records import IGNORE, IMAGE_TOKEN, Tokens, Turn

MARK = "<image>"


@dataclass(frozen=True)
class ChatFormat:
    """What stands around the texts of a conversation, `{}` for the text itself.

    `picture` stands for an `<image>` mark and holds `token` once; `closing` ends an answer.
    """

    user: str
    header: str
    answer: str
    closing: str
    opening: str = ""
    picture: str = MARK
    token: str = MARK


class Prompter:
    """Renders and tokenises conversations."""

    def __init__(self, tokenizer: Tokenizer, form: ChatFormat, image_token: int) -> None:
        self.tokenizer, self.form, self.image_token = tokenizer, form, image_token
        if tokenizer.token_to_id(form.token) != image_token:
            raise InvalidModelError(
                f"tokenizer.json: {form.token} must have the id {image_token} of config.json."
            )

    @classmethod
    def from_folder(cls, folder: Path, form: ChatFormat, image_token: int) -> "Prompter":
        """Read `tokenizer.json`, the only tokenizer file that holds no code."""
        path = folder / "tokenizer.json"
        refuse_unreadable(path)
        try:
            return cls(Tokenizer.from_file(str(path)), form, image_token)
        except InvalidModelError:
            raise
        except Exception as error:  # the library raises bare Exception on a malformed file
            raise InvalidModelError(f"tokenizer.json cannot be read: {error}.") from error

    def prompt_text(self, turns: Sequence[Turn]) -> str:
        """A conversation up to and with the header of the next answer."""
        return "".join(self._pieces(turns)) + self.form.header

    def prompt(self, turns: Sequence[Turn]) -> Tokens:
        """Tokenise a prompt."""
        return Tokens(torch.tensor(self._ids(self.prompt_text(turns))))

    def example(self, turns: Sequence[Turn]) -> Tokens:
        """Tokenise a conversation; answers are labelled, each with the end of its turn."""
        pieces = self._pieces(turns)
        ids = self._ids("".join(pieces))
        labels = [IGNORE] * len(ids)
        for number, turn in enumerate(turns):
            if turn.role == "gpt":
                start = self._reach(ids, "".join(pieces[:number]) + self.form.header)
                end = self._reach(ids, "".join(pieces[: number + 1]))
                labels[start:end] = ids[start:end]
        return Tokens(torch.tensor(ids), torch.tensor(labels))

    def response(self, text: str) -> Int[Tensor, " T"]:
        """The ids of an answer, as they follow the header."""
        before = self.form.user.format("") + self.form.header
        whole = self._ids(before + self.form.answer.format(text))
        return torch.tensor(whole[len(self._ids(before)) :], dtype=torch.long)

    def decode(self, ids: Int[Tensor, " T"]) -> str:
        """Text without special tokens and without the blank that follows a header."""
        text: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)
        return text.strip()

    def _pieces(self, turns: Sequence[Turn]) -> list[str]:
        """What each turn adds to the text; an answer comes with its header."""
        form = self.form
        pieces: list[str] = []
        for number, turn in enumerate(turns):
            text = turn.text.strip()
            if turn.role == "human":
                said = form.user.format(text.replace(MARK, form.picture))
                pieces.append(form.opening + said if number == 0 else said)
            else:
                pieces.append(form.header + form.answer.format(text) + form.closing)
        return pieces

    def _reach(self, ids: Sequence[int], text: str) -> int:
        """How many of the ids say a text that the conversation begins with."""
        head = self._ids(text)
        if list(ids[: len(head)]) != head:
            raise SampleError("The answer runs together with what stands before it or after it.")
        return len(head)

    def _ids(self, text: str) -> list[int]:
        found = self.tokenizer.encode(text).ids
        return [IMAGE_TOKEN if token == self.image_token else token for token in found]
