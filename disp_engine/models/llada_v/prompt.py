"""What LLaDA-V learns of a conversation."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer

from disp_engine.models.llava.chat import EOT, SYSTEM, ChatPrompter
from disp_engine.records import IGNORE, Tokens, Turn

__all__ = ["EOT", "SYSTEM", "Prompter"]


class Prompter(ChatPrompter):
    """Labels assistant turns whole; of the others only the special tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.suppressed = (self.pad, self.bos, self.start_header, self.end_header)

    def example(self, turns: Sequence[Turn]) -> Tokens:
        """Tokenise a conversation to learn from."""
        ids: list[int] = []
        labels: list[int] = []
        for role, message in self.conversation(turns):
            ids += message
            labels += message if role == "gpt" else self._special_only(message)
        return Tokens(ids=torch.tensor(ids), labels=torch.tensor(labels))

    def _special_only(self, ids: Sequence[int]) -> list[int]:
        special = {self.bos, self.start_header, self.end_header, self.eot}
        return [token if token in special else IGNORE for token in ids]
