"""How a run tells of itself and learns that it should stop."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from disp_engine.errors import Aborted, EngineError, Judgement


@runtime_checkable
class RunContext(Protocol):
    """What the engine needs of whoever runs it."""

    def stage(self, name: str) -> None:
        """A stage begins; what follows belongs to it."""
        ...

    def stage_done(self, name: str, seconds: float, reused: bool) -> None: ...

    def progress(self, done: int, total: int, unit: str) -> None: ...

    def metric(self, step: int, values: Mapping[str, float]) -> None: ...

    def message(self, level: str, text: str) -> None: ...

    def validated(self, param: str, judgement: Judgement, error: EngineError | None) -> None:
        """The run's file `param` was read; `error` is why it cannot be used."""
        ...

    def should_abort(self) -> bool: ...


def check(context: RunContext) -> None:
    """Raise Aborted when the run was asked to stop; call it only when all work is saved."""
    if context.should_abort():
        raise Aborted("The run was asked to stop.")


class SilentContext:
    """A context that says nothing and never stops: for libraries and tests."""

    def stage(self, name: str) -> None:
        pass

    def stage_done(self, name: str, seconds: float, reused: bool) -> None:
        pass

    def progress(self, done: int, total: int, unit: str) -> None:
        pass

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def message(self, level: str, text: str) -> None:
        pass

    def validated(self, param: str, judgement: Judgement, error: EngineError | None) -> None:
        pass

    def should_abort(self) -> bool:
        return False
