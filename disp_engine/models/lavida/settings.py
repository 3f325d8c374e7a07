"""How LaViDa attends and commits, where a run asks for another way than the paper's."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from disp_engine.diffusion.attention import Attention
from disp_engine.diffusion.schedule import Curve, Schedule
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import Generation

Sure = Literal["low_confidence", "margin", "entropy"]
"""What counts as confidence; random remasking would make a run's answers its own."""
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "attention": tuple(Attention),
    "schedule": get_args(Curve),
    "remasking": get_args(Sure),
}


@dataclass(frozen=True)
class LavidaSettings:
    """The mode, and the way in which a response is denoised; None leaves what a caller asks for.

    `attention`: `full`, as the released models were trained and the paper defends them, or
    `prefix`, in which a prompt does not see its response (prefix-DLM). `schedule` spreads the
    commits of a block over its steps, with the `shift` of the curve of this name. Fewer steps than
    tokens (the official `step_ratio`) are asked for by the hyperparameter `steps`.
    """

    attention: Attention = Attention.FULL
    schedule: Curve | None = None
    shift: float = 3.0
    remasking: Sure | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "LavidaSettings":
        """Settings from what a run asks for, or say what is wrong with it."""
        for key, choices in _CHOICES.items():
            if key in options and options[key] not in choices:
                raise InvalidRequestError(
                    f"model_options: {key} must be one of {', '.join(choices)}."
                )
        mode = Attention(options.get("attention", Attention.FULL))
        try:
            settings = cls(**{**options, "attention": mode})
        except TypeError as error:
            raise InvalidRequestError(f"model_options: {error}.") from error
        if type(settings.shift) not in (int, float) or not settings.shift > 0:
            raise InvalidRequestError("model_options: shift must be a positive number.")
        return settings

    def applied(self, generation: Generation) -> Generation:
        """The generation with what is set here."""
        if self.schedule is not None:
            generation = replace(generation, schedule=Schedule(self.schedule, self.shift))
        if self.remasking is not None:
            generation = replace(generation, remasking=self.remasking)
        return generation
