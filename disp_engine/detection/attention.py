"""What the masked rows of a response's first block look at, prompt by prompt.

A masked diffusion model has no last prompt position; these rows stand in for it.
"""

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from disp_engine.detection.interfaces import AT_ONCE
from disp_engine.diffusion.batch import masked_responses
from disp_engine.interfaces import AttendingModel, Generation
from disp_engine.records import Embedded


def first_looks(
    model: AttendingModel, prompts: Sequence[Embedded], generation: Generation
) -> Iterator[tuple[Embedded, Float[Tensor, "N H R L"]]]:
    """Each prompt with the attention of every layer and head, from R rows to all L positions."""
    block = min(generation.block_length, generation.length)
    for at in range(0, len(prompts), AT_ONCE):
        part = prompts[at : at + AT_ONCE]
        batch = masked_responses(model, part, generation.length)
        rows = batch.rows[:, :block]
        layers = range(model.depth)
        attention = model.attention_rows(batch.embeddings, rows, layers, batch.attended)
        yield from zip(part, attention, strict=True)
