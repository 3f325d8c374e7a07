"""What LaViDa learns of a conversation."""

import hashlib
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer

from disp_engine.models.llava.chat import IMAGE, ChatPrompter, header
from disp_engine.records import IGNORE, Tokens, Turn

_NEVER_MASKED = "<|reserved_token_1|>"


class Prompter(ChatPrompter):
    """Labels what the assistant says and the end of its turn; also every end of text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.never_masked: int | None = tokenizer.token_to_id(_NEVER_MASKED)

    def example(self, turns: Sequence[Turn]) -> Tokens:
        """Tokenise one question and its answer out of a conversation."""
        head = len(self.encode(header("assistant")))
        ids: list[int] = []
        labels: list[int] = []
        for role, message in self.conversation(one_pair(turns)):
            silent = head if role == "gpt" else len(message)
            ids += message
            labels += [IGNORE] * silent + message[silent:]
        learned = [i if i == self.pad else t for i, t in zip(ids, labels, strict=True)]
        return Tokens(ids=torch.tensor(ids), labels=torch.tensor(learned))


def one_pair(turns: Sequence[Turn]) -> list[Turn]:
    """Keep one question with its answer, and all pictures before the question.

    Official training draws the pair anew each time; here a hash of the conversation draws it
    once, so that a run that was resumed learns from the same text.
    """
    held = list(turns[1:] if turns and turns[0].role == "gpt" else turns)
    if len(held) <= 2:
        return held
    digest = hashlib.sha256("\0".join(turn.text for turn in held).encode()).digest()
    kept = int.from_bytes(digest[:8], "big") % (len(held) // 2)
    question, answer = held[2 * kept : 2 * kept + 2]
    pictures = sum(turn.text.count(IMAGE) for turn in held if turn.role == "human")
    words = question.text.replace(IMAGE, "").strip()
    return [Turn("human", "\n".join([IMAGE] * pictures + [words])), answer]
