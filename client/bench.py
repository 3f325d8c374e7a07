"""`disp bench`: a table of the paper, with its progress on stderr."""

import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from disp_engine.bench.cells import Cell
from disp_engine.bench.guards import GuardCell
from disp_engine.bench.run import BenchSpec, run_bench
from disp_engine.errors import EngineError, Judgement

LINE_EVERY_S = 30.0


def measure_table(spec: BenchSpec) -> dict[str, Any]:
    """Measure what is missing; Ctrl-C stops at the next saved point with `Aborted`."""
    with BenchProgress(Console(stderr=True)) as progress:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, progress.ask_to_stop)
        return run_bench(spec, progress, progress.begin)


class BenchProgress:
    """The engine's context: a bar of cells and one of the stage in hand, or plain lines."""

    def __init__(self, console: Console) -> None:
        self._live = console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description:<48}", markup=False), BarColumn(bar_width=24),
            MofNCompleteColumn(), TimeElapsedColumn(), console=console, disable=not self._live,
        )  # fmt: skip
        self._cells = self._bars.add_task("cells", total=None)
        self._stage = self._bars.add_task("", total=None)
        self._stopping = False
        self._line_at = time.monotonic()
        self._name = ""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def begin(self, number: int, total: int, cell: Cell | GuardCell) -> None:
        """A cell begins."""
        attack = cell.attack
        text = f"{attack.label} {attack.target} {attack.rate:g} {cell.defence} {cell.start}"
        self._bars.update(self._cells, description=text, completed=number, total=total)
        self._line(f"{cell.table} {number + 1}/{total}: {text}")

    def ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        """Stop at the next saved point."""
        self._stopping = True

    def stage(self, name: str) -> None:
        """A stage of a cell begins."""
        self._name = name
        self._bars.reset(self._stage, description=f"  {name}", total=None)

    def stage_done(self, name: str, seconds: float, reused: bool) -> None:
        """A stage of a cell is done; the next one takes its bar."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """So much of the stage is done."""
        self._bars.update(self._stage, completed=done, total=total)
        if time.monotonic() - self._line_at >= LINE_EVERY_S:
            self._line(f"  {self._name} {done}/{total} {unit}")

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Losses are not shown."""

    def message(self, level: str, text: str) -> None:
        """Something a reader should know."""
        self._bars.console.print(f"{level}: {text}", markup=False, highlight=False)

    def validated(self, param: str, judgement: Judgement, error: EngineError | None) -> None:
        """What falls out is told as a message."""

    def should_abort(self) -> bool:
        """Whether the user asked to stop."""
        return self._stopping

    def _line(self, text: str) -> None:
        self._line_at = time.monotonic()
        if not self._live:
            print(text, file=sys.stderr, flush=True)
