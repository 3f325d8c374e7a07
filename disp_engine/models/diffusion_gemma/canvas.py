"""The forward process and the objective of uniform block diffusion.

Published recipe (TRL's example and NVIDIA NeMo's for this model): t ~ U(1e-3, 1) for each row;
each canvas token is replaced by a uniformly random one with probability t; mean cross-entropy over
ALL canvas positions, without a weight in t; a canvas is filled up with EOS, which is learned; in
half of the rows the decoder is conditioned on its own first guess; plus the encoder's own
next-token loss over the answer. Letters: B rows, T canvas, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.errors import SampleError
from disp_engine.records import IGNORE, Embedded

EPSILON = 1e-3
SELF_CONDITIONED = 0.5


@dataclass(frozen=True)
class Noise:
    """All that is random in one batch's loss: times, what is replaced by what, who guesses."""

    t: Float[Tensor, " B"]
    u: Float[Tensor, "B T"]
    tokens: Int[Tensor, "B T"]
    guessed: Bool[Tensor, " B"]

    @classmethod
    def draw(cls, shape: tuple[int, int], vocabulary: int, generator: torch.Generator) -> "Noise":
        """Draw for `shape` = (B, T)."""
        t = EPSILON + (1 - EPSILON) * torch.rand(shape[0], generator=generator)
        u = torch.rand(shape, generator=generator)
        tokens = torch.randint(vocabulary, shape, generator=generator)
        guessed = torch.rand(shape[0], generator=generator) < SELF_CONDITIONED
        return cls(t, u, tokens, guessed)

    def applied(self, canvas: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """The canvas at time t."""
        replaced = (self.u < self.t[:, None]).to(canvas.device)
        return torch.where(replaced, self.tokens.to(canvas.device), canvas)


@dataclass(frozen=True)
class Lesson:
    """One example cut for the model: a prefix to encode and the block of the answer after it.

    `prefix_labels` [P] are IGNORE on the prompt and the answer's earlier blocks' ids; `block` [n]
    are the ids of this block, n <= T.
    """

    prefix: Embedded
    prefix_labels: Int[Tensor, " P"]
    block: Int[Tensor, " n"]


def cut(example: Embedded, canvas: int, generator: torch.Generator) -> Lesson:
    """Cut an example at one block of its answer, all blocks being equally likely."""
    if example.labels is None or not bool((example.labels != IGNORE).any()):
        raise SampleError("A training example needs an answer.")
    begin = int((example.labels != IGNORE).nonzero()[0, 0])
    blocks = -(-(len(example.labels) - begin) // canvas)
    at = begin + canvas * int(torch.randint(blocks, (), generator=generator))
    prefix = Embedded(example.embeddings[:at], example.spans)
    return Lesson(prefix, example.labels[:at], example.labels[at : at + canvas])


def filled(blocks: Sequence[Int[Tensor, " _"]], canvas: int, eos: int) -> Int[Tensor, "B T"]:
    """Blocks as whole canvases; what the answer leaves free is EOS, which is learned too."""
    rows = [torch.nn.functional.pad(block, (0, canvas - len(block)), value=eos) for block in blocks]
    return torch.stack(rows)
