"""The block sampler: remasking from left to right, block by block.

A response of G masks follows each prompt. In every step the model predicts all masked positions
up to the end of the current block and the k most confident predictions are committed. Masks are
tracked by id: a visual token that equals the mask embedding is never taken for one.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.diffusion.attention import Attention, prefix_pairs
from disp_engine.diffusion.memory import Memory, written
from disp_engine.diffusion.row import Row, Words
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import (
    Generation,
    MaskedDenoiser,
    Remasking,
    RememberingDenoiser,
    Span,
)

_PIECE = 8
"""Positions whose probabilities are in float64 at a time: those of many do not fit a cache."""


def denoise(
    model: MaskedDenoiser,
    prompts: Sequence[Float[Tensor, "_ D"]],
    generation: Generation,
    words: Words,
    generator: torch.Generator | None = None,
    attention: Attention = Attention.FULL,
) -> list[Int[Tensor, " _"]]:
    """Denoise a response after each prompt; a row gets the ids it would get alone.

    What cannot be done is refused without prompts, too.
    """
    steps = _steps_per_block(generation)
    _check_shortcuts(model, generation, attention)
    rows = list(_rows(prompts, generation, words, generator))
    memory = None
    if (
        rows and attention == Attention.PREFIX and not generation.guidance
    ):  # which reads other prompts too
        memory = Memory.of_prompts(model, rows) if isinstance(model, RememberingDenoiser) else None
    for start in range(0, generation.length, generation.block_length):
        block = Span(start, start + generation.block_length)
        for row in rows:
            row.begin(*block, steps, generation.schedule)
        if generation.kv_cache != "none":
            begun = [row for row in rows if row.active(*block, 0)]
            memory = Memory.around(model, begun, block, generation)
        for step in range(steps):
            if active := [row for row in rows if row.active(*block, step)]:
                _advance(model, active, block.end, step, generation, attention, memory)
    return [row.answer() for row in rows]


def _check_shortcuts(model: MaskedDenoiser, generation: Generation, attention: Attention) -> None:
    if generation.kv_cache != "none":
        if not isinstance(model, RememberingDenoiser):
            raise InvalidRequestError("kv_cache: the model cannot keep what it has read.")
        if attention == Attention.PREFIX:
            raise InvalidRequestError("kv_cache: in prefix mode the prompt is kept as it is.")
        if generation.guidance:
            raise InvalidRequestError("kv_cache does not go with guidance.")
    sure = generation.remasking in ("low_confidence", "margin")
    if generation.parallel_threshold is not None and not sure:
        raise InvalidRequestError(
            f"parallel_threshold does not go with remasking {generation.remasking}."
        )


def _steps_per_block(generation: Generation) -> int:
    blocks, rest = divmod(generation.length, generation.block_length)
    steps = generation.length if generation.steps is None else generation.steps
    if rest or not blocks:
        raise InvalidRequestError("generation_length must be a multiple of block_length.")
    if steps < 1 or steps % blocks:
        raise InvalidRequestError(f"steps must be a multiple of the number of blocks, {blocks}.")
    return steps // blocks


def _rows(
    prompts: Sequence[Float[Tensor, "_ D"]],
    generation: Generation,
    words: Words,
    generator: torch.Generator | None,
) -> Iterable[Row]:
    """Each row draws from a generator of its own, so that its noise does not depend on others."""
    draws = generation.temperature > 0 or generation.remasking == "random"
    if draws and generator is None:
        raise InvalidRequestError("A temperature above 0 and random remasking need a generator.")
    for prompt in prompts:
        noise = None
        if draws and generator is not None:
            seed = torch.randint(2**62, (), generator=generator, device=generator.device)
            noise = torch.Generator(prompt.device).manual_seed(int(seed))
        ids = torch.full((generation.length,), words.mask, device=prompt.device)
        yield Row(prompt, ids, words, noise)


def _advance(
    model: MaskedDenoiser,
    rows: Sequence[Row],
    end: int,
    step: int,
    generation: Generation,
    attention: Attention,
    memory: Memory | None,
) -> None:
    """One forward pass for the active rows, and the commits of each."""
    positions = [row.open(end) for row in rows]
    if memory is None:
        logits = _logits(model, rows, positions, generation.guidance, attention)
    else:
        logits = _logits_after(model, memory, rows, positions)
    logits[..., list(rows[0].words.suppressed)] = -torch.inf
    for row, at, scores in zip(rows, positions, logits, strict=True):
        scores = scores[: len(at)]
        choice = _noisy(scores, generation.temperature, row.generator).argmax(dim=-1)
        confidence = _confidence(scores, choice, generation.remasking, row.generator)
        best = confidence.topk(_count(confidence, row.quota[step], generation)).indices
        row.commit(at[best], choice[best])


def _count(confidence: Float[Tensor, " R"], quota: int, generation: Generation) -> int:
    """How many are committed: the quota, or all that the model is sure enough of."""
    sure = 0
    if generation.parallel_threshold is not None:
        sure = int((confidence > generation.parallel_threshold).sum())
    return min(max(quota, sure), len(confidence))


def _logits(
    model: MaskedDenoiser,
    rows: Sequence[Row],
    positions: Sequence[Int[Tensor, " _"]],
    guidance: float,
    attention: Attention,
) -> Float[Tensor, "B R V"]:
    """Logits at each row's positions (padded by repeating the first), guided where asked."""
    starts = torch.tensor([[len(row.prompt)] for row in rows], device=positions[0].device)
    wanted = starts + _side_by_side(positions)
    prompts = [row.prompt for row in rows]
    if guidance == 0:
        return model.logits(*_canvas(model, rows, prompts, wanted, attention)).float()
    blank = [model.mask_embedding.expand_as(prompt) for prompt in prompts]
    twice = torch.cat([wanted, wanted])
    both = _canvas(model, [*rows, *rows], [*prompts, *blank], twice, attention)
    given, free = model.logits(*both).float().chunk(2)
    return free + (guidance + 1) * (given - free)


def _logits_after(
    model: MaskedDenoiser,
    memory: Memory,
    rows: Sequence[Row],
    positions: Sequence[Int[Tensor, " _"]],
) -> Float[Tensor, "B R V"]:
    """The same from what is read again, in sight of what the memory keeps."""
    assert isinstance(model, RememberingDenoiser)
    start, end = memory.again
    read_again = written(model, rows)[:, start:end]
    wanted = _side_by_side(positions) - start
    return model.logits_after(memory.recall(rows), read_again, wanted).float()


def _side_by_side(positions: Sequence[Int[Tensor, " _"]]) -> Int[Tensor, "B R"]:
    """Rows of positions, the shorter ones padded by repeating their first."""
    widest = max(len(at) for at in positions)
    return torch.stack([torch.cat([at, at[:1].expand(widest - len(at))]) for at in positions])


def _canvas(
    model: MaskedDenoiser,
    rows: Sequence[Row],
    prompts: Sequence[Float[Tensor, "_ D"]],
    wanted: Int[Tensor, "B R"],
    attention: Attention,
) -> tuple[
    Float[Tensor, "B L D"],
    Int[Tensor, "B R"],
    Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None,
]:
    """Prompt, response and suffix of each row, padded on the right; padding is not attended."""
    written = [
        torch.cat([prompt, model.token_embeddings(row.written())])
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    lengths = torch.tensor([len(row) for row in written], device=wanted.device)
    embeddings = torch.nn.utils.rnn.pad_sequence(written, batch_first=True)
    attended = torch.arange(embeddings.shape[1], device=wanted.device) < lengths[:, None]
    if attention == Attention.PREFIX:
        starts = torch.tensor([len(prompt) for prompt in prompts], device=wanted.device)
        return embeddings, wanted, prefix_pairs(starts, attended)
    return embeddings, wanted, None if bool(attended.all()) else attended


def _noisy(
    scores: Float[Tensor, "R V"], temperature: float, generator: torch.Generator | None
) -> Float[Tensor, "R V"]:
    """Gumbel-max in float64: the argmax is a draw from softmax(scores / temperature)."""
    if temperature == 0:
        return scores
    u = torch.rand(scores.shape, dtype=torch.float64, device=scores.device, generator=generator)
    return scores.double() - temperature * (-u.log()).log()


def _confidence(
    scores: Float[Tensor, "R V"],
    choice: Int[Tensor, " R"],
    remasking: Remasking,
    generator: torch.Generator | None,
) -> Float[Tensor, " R"]:
    """How sure the model is of each position, in float64; the surest are committed first."""
    if remasking == "random":
        return torch.rand(
            len(choice), dtype=torch.float64, device=scores.device, generator=generator
        )
    pieces = zip(torch.split(scores, _PIECE), torch.split(choice, _PIECE), strict=True)
    return torch.cat([_sureness(*piece, remasking) for piece in pieces])


def _sureness(
    scores: Float[Tensor, "R V"], choice: Int[Tensor, " R"], remasking: Remasking
) -> Float[Tensor, " R"]:
    p = scores.double().softmax(dim=-1)
    if remasking == "margin":
        first, second = p.topk(2, dim=-1).values.unbind(dim=-1)
        return first - second
    if remasking == "entropy":
        return (p * (p + 1e-10).log()).sum(dim=-1)
    return p.gather(1, choice[:, None])[:, 0]
