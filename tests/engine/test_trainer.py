from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from disp_engine.context import SilentContext
from disp_engine.errors import Aborted
from disp_engine.stages import Stage
from disp_engine.training.order import batch_indices
from disp_engine.training.settings import FineTuning
from disp_engine.training.trainer import fine_tune

SETTINGS = FineTuning(epochs=3, learning_rate=0.05, batch_size=4, micro_batch=2)
SAMPLES = 10


def regression(seed: int = 0) -> tuple[nn.Module, Callable[..., torch.Tensor]]:
    torch.manual_seed(seed)
    projector = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    x, y = torch.randn(SAMPLES, 3), torch.randn(SAMPLES, 2)

    def loss_of(indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise = torch.randn(len(indices), 3, generator=generator)
        return (projector(x[indices] + 0.1 * noise) - y[indices]).square().mean()

    return projector, loss_of


class StopAt(SilentContext):
    """Asks to stop after a number of steps, as a signal would."""

    def __init__(self, step: int) -> None:
        self.left = step

    def progress(self, done: int, total: int, unit: str) -> None:
        self.left -= 1

    def should_abort(self) -> bool:
        return self.left <= 0


def train(root: Path, *stops: int) -> list[torch.Tensor]:
    for stop in stops:
        projector, loss_of = regression()
        with pytest.raises(Aborted):
            fine_tune(projector, loss_of, SAMPLES, SETTINGS, 7, stage(root), StopAt(stop))
    projector, loss_of = regression()
    fine_tune(projector, loss_of, SAMPLES, SETTINGS, 7, stage(root), SilentContext())
    return [parameter.detach().clone() for parameter in projector.parameters()]


def stage(root: Path) -> Stage:
    return Stage(root, "tune", {})


def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    straight = train(tmp_path / "straight")
    resumed = train(tmp_path / "resumed", 1, 3, 2)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_training_changes_the_weights_and_lowers_the_loss(tmp_path: Path) -> None:
    projector, loss_of = regression()
    every = torch.arange(SAMPLES)
    before = loss_of(every, torch.Generator().manual_seed(0)).item()
    long = FineTuning(epochs=60, learning_rate=0.05, batch_size=4, micro_batch=4)
    fine_tune(projector, loss_of, SAMPLES, long, 7, stage(tmp_path), SilentContext())
    assert loss_of(every, torch.Generator().manual_seed(0)).item() < 0.7 * before


def test_micro_batches_only_split_the_work(tmp_path: Path) -> None:
    """Without noise, the gradient of a step does not depend on how its batch is cut."""
    found = []
    for micro_batch in (4, 1):
        projector, _ = regression()
        x = torch.arange(SAMPLES * 3.0).reshape(SAMPLES, 3) / 10

        def loss_of(i: torch.Tensor, _: torch.Generator, p=projector, x=x) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return p(x[i]).square().mean()

        settings = FineTuning(epochs=1, learning_rate=0.01, batch_size=4, micro_batch=micro_batch)
        root = tmp_path / str(micro_batch)
        fine_tune(projector, loss_of, SAMPLES, settings, 7, stage(root), SilentContext())
        found.append(torch.cat([p.detach().flatten() for p in projector.parameters()]))
    assert torch.allclose(found[0], found[1], atol=1e-6)


def test_every_epoch_sees_every_sample_once() -> None:
    for epoch in range(3):
        steps = range(epoch * 3, epoch * 3 + 3)
        seen = torch.cat([batch_indices(step, SAMPLES, 4, seed=1) for step in steps])
        assert sorted(seen.tolist()) == list(range(SAMPLES))


def test_the_learning_rate_warms_up_and_falls_to_zero_as_a_cosine() -> None:
    settings = FineTuning(epochs=1, learning_rate=1.0, warmup_ratio=0.1)
    rates = [settings.rate(step, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
