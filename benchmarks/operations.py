"""Where the time of a pass goes: `python -m benchmarks.operations` on toy S, one thread.

For a forward pass and for the way back from a response's logits to its prompt: milliseconds in
each of torch's operations, beside those that the bare products and attentions take.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench import Bench
from benchmarks.roofline import Roofline
from benchmarks.subject import Subject

ROUNDS, SHOWN = 5, 0.005
"""SHOWN: share of the whole below which operations are added up as others."""


def milliseconds(act: Callable[[], object]) -> Mapping[str, float]:
    """In each operation itself, a mean over the rounds; what Python does is not among them."""
    act()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(ROUNDS):
            act()
    found = {event.key: event.self_cpu_time_total / ROUNDS / 1e3 for event in seen.key_averages()}
    whole = sum(found.values())
    large = {name: spent for name, spent in found.items() if spent >= SHOWN * whole}
    return large | {"others": whole - sum(large.values())}


def back(subject: Subject) -> Callable[[], object]:
    """The way back of one probe, through a graph that is kept."""
    given = subject.masked.requires_grad_()
    logits = subject.pair.model.logits(given, subject.rows)
    return partial(torch.autograd.grad, logits, given, torch.ones_like(logits), retain_graph=True)


def main() -> None:
    """Run the command."""
    torch.set_num_threads(1)
    subject = Bench().s
    floor = Roofline.of(subject)
    for name, ours, bare in (
        ("forward", subject.forward, floor.forward),
        ("back", back(subject), floor.backward),
    ):
        spent, least = milliseconds(ours), milliseconds(bare)
        print(f"{name}: {sum(spent.values()):.1f} ms, bare operations {sum(least.values()):.1f} ms")
        for key in sorted(spent, key=spent.__getitem__, reverse=True):
            print(f"  {spent[key]:6.2f}  {least.get(key, 0.0):6.2f}  {key}")


if __name__ == "__main__":
    main()
