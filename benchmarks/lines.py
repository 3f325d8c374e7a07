"""One line for each bar, as JSON: `{bar, value, target, holds, detail}`."""

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any


@dataclass(frozen=True)
class Line:
    """What was measured, what was promised, and whether that is so; None where none was set."""

    bar: str
    value: float | None
    target: float | None
    holds: bool
    detail: Mapping[str, Any] = field(default_factory=dict)


class Report:
    """Lines as they come: each is printed at once and the file is rewritten.

    After `budget_s` seconds, counted from here, what is estimated to take longer than is left is
    not begun.
    """

    def __init__(self, file: Path | None, budget_s: float) -> None:
        self.lines: list[Line] = []
        self._file, self._end = file, monotonic() + budget_s

    def left(self) -> float:
        """Seconds that may still be spent."""
        return self._end - monotonic()

    def add(self, line: Line) -> None:
        """Take in a line."""
        self.lines.append(line)
        print(json.dumps(asdict(line)), flush=True)
        if self._file:
            text = json.dumps([asdict(line) for line in self.lines], indent=1)
            part = self._file.with_suffix(".part")
            part.write_text(text)
            part.replace(self._file)

    def attempt(self, bar: str, seconds: float, measure: Callable[[], Line]) -> None:
        """Add what `measure` finds; what fails or no longer fits is a line that does not hold."""
        if self.left() < seconds:
            why = {"skipped": f"{self.left():.0f} s are left, about {seconds:.0f} are needed"}
            self.add(Line(bar, None, None, False, why))
            return
        began = monotonic()
        try:
            line = measure()
        except Exception as error:  # a broken bar must not take the others with it
            told = f"{type(error).__name__}: {error}"[:500]
            where = traceback.format_exc(limit=-3)[-1500:]
            line = Line(bar, None, None, False, {"failed": told, "where": where})
        took = {"took_s": round(monotonic() - began, 1)}
        self.add(Line(line.bar, line.value, line.target, line.holds, {**line.detail, **took}))
