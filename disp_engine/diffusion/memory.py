"""What was read for all rows, and need not be read again in every step."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from disp_engine.diffusion.row import Row
from disp_engine.interfaces import (
    Generation,
    MaskedDenoiser,
    Read,
    RememberingDenoiser,
    Span,
)


class Memory:
    """What was read for all rows, and the part of it that the active ones need.

    `again` are the places of a response that are read in each step.
    """

    def __init__(self, rows: Sequence[Row], read: Read, again: Span) -> None:
        self._places = {id(row): place for place, row in enumerate(rows)}
        self._read, self.again = read, again
        self._recalled, self._part = list(self._places.values()), self._read

    @classmethod
    def of_prompts(cls, model: RememberingDenoiser, rows: Sequence[Row]) -> "Memory":
        """The prompts, which do not see their responses."""
        return cls(rows, model.read([row.prompt for row in rows]), _whole(rows[0]))

    @classmethod
    def around(
        cls, model: MaskedDenoiser, rows: Sequence[Row], block: Span, generation: Generation
    ) -> "Memory | None":
        """All but what is read again, as it is when the block begins."""
        if not rows:
            return None
        assert isinstance(model, RememberingDenoiser)
        again = block if generation.kv_cache == "dual" else _whole(rows[0])
        prompts = [row.prompt for row in rows]
        return cls(rows, model.read(prompts, written(model, rows), again), again)

    def recall(self, active: Sequence[Row]) -> Read:
        """The active rows' part, taken anew when they are others than before."""
        places = [self._places[id(row)] for row in active]
        if places != self._recalled:
            self._recalled, self._part = places, self._read.of(places)
        return self._part


def written(model: MaskedDenoiser, rows: Sequence[Row]) -> Float[Tensor, "B T D"]:
    """Responses as they stand, each with its suffix."""
    ids = torch.stack([row.written() for row in rows])
    return model.token_embeddings(ids.flatten()).view(*ids.shape, -1)


def _whole(row: Row) -> Span:
    """A response with its suffix."""
    return Span(0, len(row.written()))
