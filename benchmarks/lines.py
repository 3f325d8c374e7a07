"""One line for each bar, as JSON: `{bar, value, target, holds, detail}`."""

import json
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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

    def __init__(self, file: Path | None, budget_s: float = math.inf) -> None:
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
        """Add the line that `measure` finds, if about so many seconds are left for it."""
        if self.left() < seconds:
            why = {"skipped": f"{self.left():.0f} s are left, about {seconds:.0f} are needed"}
            self.add(Line(bar, None, None, False, why))
            return
        self.attempt_all(bar, lambda: [measure()])

    def attempt_all(self, bar: str, measure: Callable[[], Sequence[Line]]) -> None:
        """Add the lines that `measure` finds; what fails is a line that does not hold."""
        began = monotonic()
        try:
            lines = measure()
        except Exception as error:  # a broken bar must not take the others with it
            told = f"{type(error).__name__}: {error}"[:500]
            where = traceback.format_exc(limit=-3)[-1500:]
            lines = [Line(bar, None, None, False, {"failed": told, "where": where})]
        took = {"took_s": round(monotonic() - began, 1)}
        for line in lines:
            self.add(replace(line, detail={**line.detail, **took}))
