"""Remembers how long each stage took while it passes everything on."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from disp_engine.context import RunContext
from disp_engine.errors import EngineError, Judgement


class StageLog:
    """A run context in front of another one."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.stages: list[dict[str, Any]] = []

    @contextmanager
    def timed(self, name: str, began: float | None = None) -> Iterator[None]:
        """Run one stage that is always done anew; it may have begun earlier."""
        started = time.monotonic() if began is None else began
        self.stage(name)
        yield
        self.stage_done(name, time.monotonic() - started, reused=False)

    def stage(self, name: str) -> None:
        """A stage begins."""
        self.context.stage(name)

    def stage_done(self, name: str, seconds: float, reused: bool) -> None:
        """A stage is done."""
        self.stages.append({"name": name, "seconds": round(seconds, 3), "reused": reused})
        self.context.stage_done(name, seconds, reused)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Pass on."""
        self.context.progress(done, total, unit)

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on."""
        self.context.metric(step, values)

    def message(self, level: str, text: str) -> None:
        """Pass on."""
        self.context.message(level, text)

    def validated(self, param: str, judgement: Judgement, error: EngineError | None) -> None:
        """Pass on."""
        self.context.validated(param, judgement, error)

    def should_abort(self) -> bool:
        """Pass on."""
        return self.context.should_abort()
