"""The block sampler: remasking from left to right, block by block.

A response of G masks follows each prompt. In every step the model predicts all masked positions
up to the end of the current block and the k most confident predictions are committed. Masks are
tracked by id: a visual token that equals the mask embedding is never taken for one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.diffusion.attention import Attention, prefix_pairs
from disp_engine.diffusion.schedule import Schedule
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import (
    Generation,
    MaskedDenoiser,
    Read,
    Remasking,
    RememberingDenoiser,
)


@dataclass(frozen=True)
class Words:
    """The ids a generation turns on."""

    mask: int
    suppressed: tuple[int, ...] = ()
    stops: tuple[tuple[int, ...], ...] = ()
    suffix: tuple[int, ...] = ()


@dataclass
class _Row:
    """One response on its way: `ids` hold its G positions, `quota` the commits of each step."""

    prompt: Float[Tensor, "P D"]
    ids: Int[Tensor, " G"]
    words: Words
    generator: torch.Generator | None
    stop: int | None = None
    quota: list[int] = field(default_factory=list)

    def masks(self, start: int, end: int) -> Int[Tensor, " M"]:
        return start + (self.ids[start:end] == self.words.mask).nonzero()[:, 0]

    def begin(self, start: int, end: int, steps: int, schedule: Schedule) -> None:
        """Spread the block's masks over its steps."""
        quota = schedule.quotas(len(self.masks(start, end)), steps)
        self.quota = quota + [0] * (steps - len(quota))

    def active(self, start: int, end: int, step: int) -> bool:
        """Whether this step can still change what the response says."""
        if self.stop is not None and (self.stop <= start or not len(self.masks(0, self.stop))):
            return False
        return self.quota[step] > 0 and len(self.masks(start, end)) > 0

    def open(self, end: int) -> Int[Tensor, " M"]:
        """Positions that compete: masks before the stop, or before the end of the block."""
        return self.masks(0, end if self.stop is None else min(end, self.stop))

    def commit(self, positions: Int[Tensor, " k"], ids: Int[Tensor, " k"]) -> None:
        """Fill positions; once a stop is found, official code looks for the first of them alone."""
        self.ids[positions] = ids
        for stop in self.words.stops:
            found = _first(self.ids.tolist(), stop)
            if found is not None and (self.stop is None or found < self.stop):
                self.stop = found
            if self.stop is not None:
                return

    def answer(self) -> Int[Tensor, " T"]:
        return torch.cat([self.ids[: self.stop], self.ids.new_tensor(self.words.suffix)])


def denoise(
    model: MaskedDenoiser,
    prompts: Sequence[Float[Tensor, "_ D"]],
    generation: Generation,
    words: Words,
    generator: torch.Generator | None = None,
    attention: Attention = Attention.FULL,
) -> list[Int[Tensor, " _"]]:
    """Denoise a response after each prompt; a row gets the ids it would get alone."""
    steps = _steps_per_block(generation)
    rows = list(_rows(prompts, generation, words, generator))
    memory = None
    if attention == Attention.PREFIX and not generation.guidance:  # which reads other prompts too
        memory = _Memory(model, rows) if isinstance(model, RememberingDenoiser) else None
    for start in range(0, generation.length, generation.block_length):
        end = start + generation.block_length
        for row in rows:
            row.begin(start, end, steps, generation.schedule)
        for step in range(steps):
            active = [row for row in rows if row.active(start, end, step)]
            if not active:
                continue
            read = memory.recall(active) if memory else None
            _advance(model, active, end, step, generation, attention, read)
    return [row.answer() for row in rows]


class _Memory:
    """What was read of all prompts, and the part of it that the active rows need."""

    def __init__(self, model: RememberingDenoiser, rows: Sequence[_Row]) -> None:
        self._places = {id(row): place for place, row in enumerate(rows)}
        self._read = model.read([row.prompt for row in rows])
        self._recalled, self._part = list(self._places.values()), self._read

    def recall(self, active: Sequence[_Row]) -> Read:
        """The active rows' part, taken anew when they are others than before."""
        places = [self._places[id(row)] for row in active]
        if places != self._recalled:
            self._recalled, self._part = places, self._read.of(places)
        return self._part


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
) -> Iterable[_Row]:
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
        yield _Row(prompt, ids, words, noise)


def _advance(
    model: MaskedDenoiser,
    rows: Sequence[_Row],
    end: int,
    step: int,
    generation: Generation,
    attention: Attention,
    read: Read | None = None,
) -> None:
    """One forward pass for the active rows, and the commits of each."""
    positions = [row.open(end) for row in rows]
    if read is None:
        logits = _logits(model, rows, positions, generation.guidance, attention)
    else:
        logits = _logits_after(model, read, rows, positions)
    logits[..., list(rows[0].words.suppressed)] = -torch.inf
    for row, at, scores in zip(rows, positions, logits, strict=True):
        scores = scores[: len(at)]
        choice = _noisy(scores, generation.temperature, row.generator).argmax(dim=-1)
        confidence = _confidence(scores, choice, generation.remasking, row.generator)
        best = confidence.topk(min(row.quota[step], len(at))).indices
        row.commit(at[best], choice[best])


def _logits(
    model: MaskedDenoiser,
    rows: Sequence[_Row],
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
    read: Read,
    rows: Sequence[_Row],
    positions: Sequence[Int[Tensor, " _"]],
) -> Float[Tensor, "B R V"]:
    """The same from the response alone, after prompts that were read."""
    assert isinstance(model, RememberingDenoiser)
    ids = [torch.cat([row.ids, _suffix(row)]) for row in rows]
    written = model.token_embeddings(torch.cat(ids)).view(len(rows), len(ids[0]), -1)
    return model.logits_after(read, written, _side_by_side(positions)).float()


def _side_by_side(positions: Sequence[Int[Tensor, " _"]]) -> Int[Tensor, "B R"]:
    """Rows of positions, the shorter ones padded by repeating their first."""
    widest = max(len(at) for at in positions)
    return torch.stack([torch.cat([at, at[:1].expand(widest - len(at))]) for at in positions])


def _canvas(
    model: MaskedDenoiser,
    rows: Sequence[_Row],
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
        torch.cat([prompt, model.token_embeddings(torch.cat([row.ids, _suffix(row)]))])
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    lengths = torch.tensor([len(row) for row in written], device=wanted.device)
    embeddings = torch.nn.utils.rnn.pad_sequence(written, batch_first=True)
    attended = torch.arange(embeddings.shape[1], device=wanted.device) < lengths[:, None]
    if attention == Attention.PREFIX:
        starts = torch.tensor([len(prompt) for prompt in prompts], device=wanted.device)
        return embeddings, wanted, prefix_pairs(starts, attended)
    return embeddings, wanted, None if bool(attended.all()) else attended


def _suffix(row: _Row) -> Int[Tensor, " S"]:
    return row.ids.new_tensor(row.words.suffix)


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
    p = scores.double().softmax(dim=-1)
    if remasking == "margin":
        first, second = p.topk(2, dim=-1).values.unbind(dim=-1)
        return first - second
    if remasking == "entropy":
        return (p * (p + 1e-10).log()).sum(dim=-1)
    return p.gather(1, choice[:, None])[:, 0]


def _first(ids: Sequence[int], stop: Sequence[int]) -> int | None:
    """Where the stop sequence first occurs."""
    width = len(stop)
    return next(
        (at for at in range(len(ids) - width + 1) if width and tuple(ids[at : at + width]) == stop),
        None,
    )
