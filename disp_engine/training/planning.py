"""How many samples fit at once, by what one of them was measured to take.

The largest sample goes once through the two heaviest steps, tuning and the first denoising step of
a response (which autoregressive models have not), each there and back. What they take above the
model at rest is planned for every sample.
"""

import os
import resource
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from disp_engine.interfaces import DiffusionModel, VisualModel
from disp_engine.records import Sample
from disp_engine.training.examples import FeatureCache
from disp_engine.training.projector import own_loss

PLANNED_SHARE = 0.8
"""Of the free memory; the rest is for what one sample does not show, such as fragments."""


@runtime_checkable
class Gauge(Protocol):
    """What can be told of a device's memory, in bytes."""

    def free(self) -> int:
        """What can still be taken."""
        ...

    def held(self) -> int:
        """What this process has taken, the model above all."""
        ...

    def taken_by(self, act: Callable[[], object]) -> int:
        """The most that `act` takes above what is taken now."""
        ...


class CudaGauge:
    """A GPU's own count."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        """What the driver has left once the allocator has given back what it only holds."""
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self._device)[0]

    def held(self) -> int:
        """Bytes of all tensors there are."""
        return torch.cuda.memory_allocated(self._device)

    def taken_by(self, act: Callable[[], object]) -> int:
        """The allocator's peak."""
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        act()
        return torch.cuda.max_memory_allocated(self._device) - before


class HostGauge:
    """The host's memory; what is taken is what autograd keeps for the way back."""

    def free(self) -> int:
        """Pages that are free, the disk's cache not counted among them."""
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def held(self) -> int:
        """The most that the process ever had; Linux counts it in KiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10

    def taken_by(self, act: Callable[[], object]) -> int:
        """Bytes of all different storages that are kept, weights among them."""
        kept: dict[int, int] = {}

        def keep(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            act()
        return sum(kept.values())


def gauge_of(device: torch.device) -> Gauge:
    """The gauge of a device."""
    return CudaGauge(device) if device.type == "cuda" else HostGauge()


def planned_micro_batch(
    model: VisualModel,
    samples: Sequence[Sample],
    cache: FeatureCache,
    block_length: int,
    most: int,
    gauge: Gauge,
    *,
    twice: bool = False,
) -> int:
    """The largest power of two that fits, between 1 and `most`; steps of two keep it repeatable.

    `twice`: another process will load the model once more beside this one (training/ranks.py).
    """
    largest = max(samples, key=lambda sample: _size(sample, cache))
    need = gauge.taken_by(lambda: _tune(model, largest, cache))
    if isinstance(model, DiffusionModel):
        scored = gauge.taken_by(lambda: _score(model, largest, cache, block_length))
        need = max(need, scored)
    free = gauge.free() - (gauge.held() if twice else 0)
    fit = int(PLANNED_SHARE * max(0, free)) // max(1, need)
    return min(most, 1 << max(0, fit.bit_length() - 1))


def _size(sample: Sample, cache: FeatureCache) -> tuple[int, int]:
    tiles = sum(len(picture.tiles) for picture in cache.of(sample, sample.turns))
    return tiles, sum(len(turn.text) for turn in sample.turns)


def _tune(model: VisualModel, sample: Sample, cache: FeatureCache) -> None:
    tokens, features = model.tokenise_example(sample.turns), cache.of(sample, sample.turns)
    loss = own_loss(model, [model.embed(tokens, features)], torch.Generator().manual_seed(0))
    parameters = list(model.projector.parameters())
    torch.autograd.grad(loss, parameters, allow_unused=True)


def _score(model: DiffusionModel, sample: Sample, cache: FeatureCache, rows: int) -> None:
    first = sample.turns[:1]
    with torch.no_grad():
        prompt = model.embed(model.tokenise_prompt(first), cache.of(sample, first))
    step = model.first_step([prompt], rows, rows, seed=0)
    torch.autograd.grad(step.logits.float().sum(), step.shown)
