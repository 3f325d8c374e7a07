"""How much memory something takes in a process of its own, above what stood there before.

`python -m benchmarks.memory step --vocabulary V --pictures P --text T` builds a small LLaDA-V,
takes one training step in which 32 tokens are masked and prints the bytes that it took at its
peak; `python -m benchmarks.memory job --spec FILE` prints the peak of a whole run.
"""

import argparse
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.bench import Bench
from benchmarks.shapes import toy
from benchmarks.subject import Sizes
from disp_engine.context import SilentContext
from disp_engine.models.llada_v import LladaV
from disp_engine.models.llada_v.config import LladaVConfig
from disp_engine.run import run
from disp_engine.spec import RunSpec

LAYERS, WIDTH, INNER, ROWS = 4, 128, 384, 32
_MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
"""Blocks of this size go back to the system when they are freed, so that none is counted twice."""


def in_child(*words: str) -> int:
    """What the command prints when it is given these words."""
    command = [sys.executable, "-m", "benchmarks.memory", *words]
    done = subprocess.run(
        command, env=os.environ | _MAPPED, check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout.split()[-1])


def step(vocabulary: int, pictures: int, text: int) -> int:
    """Peak bytes of a training step above model and inputs, after a first one."""
    shape = toy(LladaV, LladaVConfig, vocabulary=vocabulary)
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
    shape = replace(shape, config=replace(shape.config, **sizes))
    subject = Bench().subject(shape, Sizes(pictures, 196, text, ROWS))
    model = subject.pair.model
    assert isinstance(model, LladaV)

    def act() -> None:
        example = model.embed(*subject.examples[0])
        u = torch.zeros(1, len(example.embeddings))  # masks all that is labelled
        loss = model.training_loss([example], torch.ones(1), u)
        torch.autograd.grad(loss, list(model.projector.parameters()))

    act()
    ctypes.CDLL(None).malloc_trim(0)  # what the first step left free is not there to be used again
    return _grown(act)


def job(spec: Path) -> int:
    """Peak bytes of a run, the process as a whole."""
    torch.set_num_threads(1)
    run(RunSpec.from_file(spec), SilentContext())
    return _status("VmHWM")


def _grown(act: Callable[[], None]) -> int:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    act()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    stepped = kinds.add_parser("step")
    for name in ("vocabulary", "pictures", "text"):
        stepped.add_argument(f"--{name}", type=int, required=True)
    kinds.add_parser("job").add_argument("--spec", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.kind == "step":
        print(step(given.vocabulary, given.pictures, given.text))
    else:
        print(job(given.spec))


if __name__ == "__main__":
    main()
