"""Times of what is compared, taken in turn; and what the device can do at its best."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

Clock = Callable[[], float]


@dataclass(frozen=True)
class Arm:
    """One of the compared: what it does in round 0, 1, ..., and with how many samples at once."""

    act: Callable[[int], Any]
    samples: int = 1


@dataclass(frozen=True)
class Timing:
    """Seconds of each round, results of each, and the device's peak bytes above what stood there.

    `peak_bytes` is None on a CPU, which keeps no count.
    """

    seconds: Sequence[float]
    results: Sequence[Any]
    peak_bytes: int | None
    samples: int

    @property
    def median(self) -> float:
        """Seconds a sample takes in the middle one of the rounds."""
        return statistics.median(self.seconds) / self.samples

    @property
    def least(self) -> float:
        """Seconds a sample takes in the quickest round."""
        return min(self.seconds) / self.samples

    def to_json(self) -> dict[str, Any]:
        """Milliseconds a sample takes, how far the rounds are apart, and the peak."""
        spread = max(self.seconds) / min(self.seconds) - 1
        peak = None if self.peak_bytes is None else round(self.peak_bytes / 2**30, 2)
        each = {"ms": round(self.median * 1e3, 3), "samples": self.samples}
        return each | {"rounds": len(self.seconds), "spread": round(spread, 3), "peak_gib": peak}


def interleaved(
    arms: Mapping[str, Arm],
    device: torch.device,
    rounds: int,
    *,
    least: int = 3,
    left: Callable[[], float] = lambda: float("inf"),
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Run the arms A B A B ..., after one warm-up of each that is not counted.

    Seconds are those of `clock`: of the wall, or, where others share the cores, those that this
    process was given. Stops after `least` rounds where `left` seconds would not do for another one.
    """
    peaks = {name: _warm(arm, device) for name, arm in arms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    results: dict[str, list[Any]] = {name: [] for name in arms}
    for number in range(rounds):
        began = time.perf_counter()
        for name, arm in arms.items():
            took, result = timed(partial(arm.act, number), device, clock)
            seconds[name].append(took)
            results[name].append(result)
        if number + 1 >= least and left() < 1.5 * (time.perf_counter() - began):
            break
    return {
        name: Timing(seconds[name], results[name], peaks[name], arm.samples)
        for name, arm in arms.items()
    }


def timed(
    act: Callable[[], Any], device: torch.device, clock: Clock = time.perf_counter
) -> tuple[float, Any]:
    """Seconds from an idle device to an idle device."""
    synchronise(device)
    began = clock()
    result = act()
    synchronise(device)
    return clock() - began, result


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _warm(arm: Arm, device: torch.device) -> int | None:
    if device.type != "cuda":
        arm.act(0)
        return None
    synchronise(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    arm.act(0)
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


@dataclass(frozen=True)
class Ceilings:
    """The device's best: operations a second of one large product, bytes a second of a copy."""

    flops: float
    bytes_s: float

    @classmethod
    def of(
        cls,
        device: torch.device,
        dtype: torch.dtype,
        *,
        width: int,
        repeats: int,
        rounds: int = 5,
        clock: Clock = time.perf_counter,
    ) -> "Ceilings":
        """Multiply [2w, w] by [w, 3w] and copy what that made, `repeats` times on end.

        The quickest of `rounds` counts; a device's clock is steady only after some tenths of a
        second.
        """
        a = torch.randn(2 * width, width, device=device, dtype=dtype)
        b = torch.randn(width, 3 * width, device=device, dtype=dtype)
        made, copied = a @ b, torch.empty(2 * width, 3 * width, device=device, dtype=dtype)
        product, copy = (
            min(timed(act, device, clock)[0] for _ in range(rounds))
            for act in (
                partial(_often, repeats, a, b, made),
                partial(_copied, repeats, made, copied),
            )
        )
        moved = 2 * made.numel() * made.element_size()
        return cls(repeats * 12 * width**3 / product, repeats * moved / copy)

    def drift(self, later: "Ceilings") -> float:
        """The larger of both relative changes."""
        return max(abs(later.flops / self.flops - 1), abs(later.bytes_s / self.bytes_s - 1))

    def to_json(self) -> dict[str, float]:
        """In TFLOP/s and GB/s."""
        return {"tflops": round(self.flops / 1e12, 3), "gb_s": round(self.bytes_s / 1e9, 1)}


def _often(repeats: int, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    for _ in range(repeats):
        torch.mm(a, b, out=out)


def _copied(repeats: int, source: torch.Tensor, target: torch.Tensor) -> None:
    for _ in range(repeats):
        target.copy_(source)
