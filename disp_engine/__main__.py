"""The engine as a process: `python -m disp_engine SPEC.json`, JSON lines on stdout."""

import ctypes
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING

from disp_engine.errors import Aborted
from disp_engine.lines import JsonLines
from disp_engine.process import INPUT_AT_FAULT, leave, run_process

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4

if TYPE_CHECKING:
    from disp_engine.sharing import Part
    from disp_engine.stages import Stage


class SharedWork:
    """The run's `Sharing`: asks the parent process, which knows the other runs."""

    def __init__(self, context: JsonLines) -> None:
        self._context = context

    def offer(self, source: "Stage", stages: "Sequence[Stage]", samples: int, cut: int) -> None:
        """Tell of work that others may take parts of, if any is left."""
        left = [stage.folder.name for stage in stages if not stage.complete]
        if left:
            self._context.write(
                type="shards_offered", source=source.folder.name, folders=left, samples=samples,
                cut=cut,
            )  # fmt: skip

    def parts(self, stage: "Stage", samples: int) -> "Iterator[Part]":
        """Yield the parts that the parent grants, until it says that all files are there."""
        from disp_engine.sharing import Part

        folder = stage.folder.name
        while not stage.complete:
            self._context.write(type="shard_wanted", folder=folder)
            granted = self._answer()
            if granted is None:
                return
            yield Part(**granted)
            self._context.write(
                type="shard_done", folder=folder, first=granted["first"], last=granted["last"]
            )

    def _answer(self) -> dict[str, int] | None:
        while not self._context.should_abort():
            try:
                granted: dict[str, int] | None = json.loads(self._context.answers.get(timeout=0.1))
                return granted
            except Empty:
                continue
        raise Aborted("The run was asked to stop.")


def main(argv: list[str]) -> int:
    """Run the spec named on the command line."""
    if len(argv) != 2:
        print("usage: python -m disp_engine SPEC.json", file=sys.stderr)
        return INPUT_AT_FAULT
    _keep_freed_memory()
    return run_process(lambda context: _run(Path(argv[1]), context))


def _run(path: Path, context: JsonLines) -> None:
    from disp_engine.ingest import ingest
    from disp_engine.spec import RunSpec

    spec = RunSpec.from_file(path)
    context.stage("ingest")
    ingested = ingest(spec, context)

    from disp_engine.run import run  # imports torch: only for data that can be used
    from disp_engine.sharing import Alone

    sharing = Alone() if spec.role == "alone" else SharedWork(context)
    run(spec, context, sharing, ingested)


def _keep_freed_memory() -> None:
    """Tell glibc to keep what is freed, since the next tensor would fault each page in again."""
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


if __name__ == "__main__":
    leave(main(sys.argv))
