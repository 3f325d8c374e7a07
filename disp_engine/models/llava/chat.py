"""Conversations to token ids by LLaDA's chat template; each family adds its training labels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

from disp_engine.errors import InvalidModelError
from disp_engine.models.checkpoint import refuse_unreadable
from disp_engine.records import IMAGE_TOKEN, Tokens, Turn

BOS = "<|startoftext|>"
PAD = "<|endoftext|>"
MASK = "<|mdm_mask|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
EOT = "<|eot_id|>"
IMAGE = "<image>"
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
_ROLES = {"human": "user", "gpt": "assistant"}


P = TypeVar("P", bound="ChatPrompter")


class ChatPrompter(ABC):
    """Renders conversations; every special id is looked up by its string."""

    suppressed: tuple[int, ...] = ()
    """Ids that the family's sampler never puts at a masked position."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.bos, self.pad, self.mask = self._id(BOS), self._id(PAD), self._id(MASK)
        self.start_header, self.end_header = self._id(START_HEADER), self._id(END_HEADER)
        self.eot = self._id(EOT)

    @classmethod
    def from_folder(cls: type[P], folder: Path) -> P:
        """Read `tokenizer.json`, the only tokenizer file that holds no code."""
        path = folder / "tokenizer.json"
        refuse_unreadable(path)
        try:
            return cls(Tokenizer.from_file(str(path)))
        except InvalidModelError:
            raise
        except Exception as error:  # the library raises bare Exception on a malformed file
            raise InvalidModelError(f"tokenizer.json cannot be read: {error}.") from error

    @property
    def size(self) -> int:
        """Rows of the vocabulary that some token uses."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def prompt_text(self, turns: Sequence[Turn]) -> str:
        """The chat template's text, ending with the header of the assistant's next turn."""
        messages = [("system", SYSTEM), *((_ROLES[turn.role], turn.text) for turn in turns)]
        body = "".join(_message(role, text.strip()) for role, text in messages)
        return f"{BOS}{body}{header('assistant')}"

    def prompt(self, turns: Sequence[Turn]) -> Tokens:
        """Tokenise a prompt around its pictures.

        Official code tokenises each piece on its own and, when the first begins with BOS, drops
        the first id of EVERY piece, which takes BOS from tokenizers that add one and otherwise
        the line break after each picture.
        """
        pieces = [self.tokenizer.encode(p).ids for p in self.prompt_text(turns).split(IMAGE)]
        dropped = int(pieces[0][:1] == [self.bos])
        ids = pieces[0][:dropped] + _join([piece[dropped:] for piece in pieces])
        return Tokens(ids=torch.tensor(ids))

    @abstractmethod
    def example(self, turns: Sequence[Turn]) -> Tokens:
        """Tokenise a conversation to learn from, with the family's labels."""

    def conversation(self, turns: Sequence[Turn]) -> list[tuple[str, list[int]]]:
        """Roles and ids of each message of a training text, the system's first.

        A leading assistant turn is left out, and a single picture is moved to the front of its
        turn.
        """
        answered = turns[1:] if turns and turns[0].role == "gpt" else turns
        found: list[tuple[str, list[int]]] = [
            ("system", self._encode(BOS + _message("system", SYSTEM)))
        ]
        for turn in answered:
            text = _message(_ROLES[turn.role], _picture_first(turn.text))
            found.append((turn.role, self._encode(text)))
        return found

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of the text alone, without BOS."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Int[Tensor, " T"]) -> str:
        """Text without special tokens."""
        text: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)
        return text

    def _encode(self, text: str) -> list[int]:
        return _join([list(self.encode(piece)) for piece in text.split(IMAGE)])

    def _id(self, token: str) -> int:
        found: int | None = self.tokenizer.token_to_id(token)
        if found is None:
            raise InvalidModelError(f"tokenizer.json has no token {token}.")
        return found


def header(role: str) -> str:
    """What opens a role's message."""
    return f"{START_HEADER}{role}{END_HEADER}\n\n"


def _message(role: str, text: str) -> str:
    return f"{header(role)}{text}{EOT}"


def _picture_first(text: str) -> str:
    if text.count(IMAGE) != 1 or text.startswith(IMAGE):
        return text
    return f"{IMAGE}\n{text.replace(IMAGE, '').strip()}".strip()


def _join(pieces: Sequence[Sequence[int]]) -> list[int]:
    """Put an image token between each two pieces."""
    ids = list(pieces[0])
    for piece in pieces[1:]:
        ids += [IMAGE_TOKEN, *piece]
    return ids
