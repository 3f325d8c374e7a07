"""How far a run is, on stderr: live bars on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from schemas.jobs import Step, StepStatus

LINE_EVERY_S = 10.0
ENDED = frozenset({StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED})


class View(Protocol):
    """Something that shows stages; used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, step: Step) -> None:
        """Show a stage as it is now; a repeated state is no news."""
        ...

    def say(self, text: str) -> None:
        """Show a line of text."""
        ...


class Pace:
    """Rate and time left of one stage, from what this process saw of it."""

    def __init__(self, done: int) -> None:
        self._first, self._since = done, time.monotonic()

    def describe(self, step: Step) -> str:
        """`120/1000 samples, 14.2/s, 1:02 left`, as far as it is known."""
        if step.total is None:
            return ""
        parts = [f"{step.done}/{step.total} {step.unit or ''}".rstrip()]
        elapsed, gained = time.monotonic() - self._since, step.done - self._first
        if gained > 0 and elapsed > 0:
            rate = gained / elapsed
            parts += [f"{rate:.1f}/s", f"{clock((step.total - step.done) / rate)} left"]
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """`1:02`, or `1:00:02` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def verdict(step: Step) -> str:
    """How a stage ended: `12.3 s, 1000 samples`, `reused`, `failed`, `skipped`."""
    if step.status is not StepStatus.SUCCEEDED:
        return step.status.value
    if step.reused:
        return "reused"
    parts = []
    if step.started_at is not None and step.finished_at is not None:
        parts.append(f"{step.finished_at - step.started_at:.1f} s")
    if step.total is not None:
        parts.append(f"{step.done} {step.unit or ''}".rstrip())
    return ", ".join(parts) or "done"


class PlainView:
    """A line when a stage begins, one every ten seconds, one when it ends."""

    def __init__(self) -> None:
        self._paces: dict[str, Pace] = {}
        self._ended: set[str] = set()
        self._line_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def show(self, step: Step) -> None:
        """Print a line if there is news."""
        name = step.name.value
        if step.status in ENDED and name not in self._ended:
            self._ended.add(name)
            self.say(f"{name:<16} {verdict(step)}")
        elif step.status is StepStatus.RUNNING:
            self._ended.discard(name)
            self._show_running(name, step)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def _show_running(self, name: str, step: Step) -> None:
        now = time.monotonic()
        if name not in self._paces:
            self._paces[name] = Pace(step.done)
            self._line_at[name] = now
            self.say(f"{name:<16} started")
        elif now - self._line_at[name] >= LINE_EVERY_S:
            self._line_at[name] = now
            self.say(f"{name:<16} {self._paces[name].describe(step)}".rstrip())


class LiveView:
    """A bar for each stage."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[pace]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, step: Step) -> None:
        """Move the stage's bar."""
        if step.status is StepStatus.PENDING:
            return
        name, total = step.name.value, step.total
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None, pace="")
            self._paces[name] = Pace(step.done)
        done = step.done
        if step.status in ENDED:
            done = total = total or 1
            pace = verdict(step)
        else:
            pace = self._paces[name].describe(step)
        self._progress.update(self._tasks[name], completed=done, total=total, pace=pace)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)


def open_view() -> View:
    """Bars if stderr is a terminal, lines if not."""
    console = Console(stderr=True)
    return LiveView(console) if console.is_terminal else PlainView()
