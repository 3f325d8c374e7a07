"""No guard at all: what the others are measured against."""

from collections.abc import Sequence
from dataclasses import dataclass

from disp_engine.guards.guard import Guard, Judged, Ruling, Verdict
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded


@dataclass(frozen=True)
class UndefendedSettings:
    """There is nothing to set."""

    def build(self, model: VisualModel) -> "Undefended":
        """The model's own answers."""
        return Undefended(model)


class Undefended(Guard):
    """Lets every question pass as it is."""

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Think nothing of any prompt."""
        return Judged(tuple(Ruling(Verdict(), prompt) for prompt in prompts))
