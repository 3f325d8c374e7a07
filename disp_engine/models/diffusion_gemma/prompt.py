"""Conversations to token ids and training labels, in Gemma 4's turn format without thinking.

Source of the format: https://ai.google.dev/gemma/docs/core/prompt-formatting-gemma4. The public
DiffusionGemma template opens the model's turn without an empty thought.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

from disp_engine.errors import InvalidModelError, SampleError
from disp_engine.models.checkpoint import refuse_unreadable
from disp_engine.records import IGNORE, IMAGE_TOKEN, Tokens, Turn

BOS, EOS = "<bos>", "<eos>"
OPEN, CLOSE = "<|turn>", "<turn|>"
IMAGE = "<image>"
_ROLES = {"human": "user", "gpt": "model"}


class Prompter:
    """Renders conversations; every special id is looked up by its string."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.bos, self.eos = self._id(BOS), self._id(EOS)
        self.open, self.close = self._id(OPEN), self._id(CLOSE)

    @classmethod
    def from_folder(cls, folder: Path) -> "Prompter":
        """Read `tokenizer.json`, the only tokenizer file that holds no code."""
        path = folder / "tokenizer.json"
        refuse_unreadable(path)
        try:
            return cls(Tokenizer.from_file(str(path)))
        except InvalidModelError:
            raise
        except Exception as error:  # the library raises bare Exception on a malformed file
            raise InvalidModelError(f"tokenizer.json cannot be read: {error}.") from error

    def prompt(self, turns: Sequence[Turn]) -> Tokens:
        """Tokenise a conversation up to the opening of the model's next turn."""
        ids = [self.bos]
        for turn in turns:
            ids += self._message(turn)
        return Tokens(ids=torch.tensor(ids + self._opening("model")))

    def example(self, turns: Sequence[Turn]) -> Tokens:
        """Tokenise a conversation to learn its last answer, with the end of its turn.

        The published recipes supervise the final answer only; earlier ones are context.
        """
        if not turns or turns[-1].role != "gpt":
            raise SampleError("A training example must end with an answer.")
        prompt = self.prompt(turns[:-1]).ids
        answer = torch.tensor([*self.encode(turns[-1].text.strip()), self.close])
        labels = torch.cat([torch.full_like(prompt, IGNORE), answer])
        return Tokens(ids=torch.cat([prompt, answer]), labels=labels)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of the text alone, without BOS."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Int[Tensor, " T"]) -> str:
        """Text without special tokens."""
        text: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)
        return text

    def _message(self, turn: Turn) -> list[int]:
        pieces = [list(self.encode(piece)) for piece in turn.text.strip().split(IMAGE)]
        ids = pieces[0]
        for piece in pieces[1:]:
            ids = [*ids, IMAGE_TOKEN, *piece]
        return [*self._opening(_ROLES[turn.role]), *ids, self.close, *self.encode("\n")]

    def _opening(self, role: str) -> list[int]:
        return [self.open, *self.encode(f"{role}\n")]

    def _id(self, token: str) -> int:
        found: int | None = self.tokenizer.token_to_id(token)
        if found is None:
            raise InvalidModelError(f"tokenizer.json has no token {token}.")
        return found
