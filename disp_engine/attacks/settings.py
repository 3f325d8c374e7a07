"""An attack by the names of its parts, as JSON can hold it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from disp_engine import registry
from disp_engine.attacks.interfaces import Target, TextTrigger, Trigger
from disp_engine.errors import InvalidRequestError

Mode = Literal["and", "or"]


@dataclass(frozen=True)
class Attack:
    """trigger x target x rate; a dual trigger marks the picture and the question.

    `rate` is the share of all samples that are poisoned. With a dual trigger, mode `and` marks
    both parts of every poisoned sample; `or` marks a third of them in the picture alone, a third
    in the question alone, a third in both.
    """

    target: Target
    picture: Trigger | None
    text: TextTrigger | None = None
    rate: float = 0.2
    mode: Mode = "and"


@dataclass(frozen=True)
class AttackSettings:
    """The names of an attack's parts, with options in place of their defaults.

    The default is the paper's attack (section 4.1).
    """

    trigger: str | None = "black_patch"
    target: str = "targeted_refusal"
    rate: float = 0.2
    text_trigger: str | None = None
    mode: Mode = "and"
    trigger_options: Mapping[str, Any] = field(default_factory=dict)
    text_trigger_options: Mapping[str, Any] = field(default_factory=dict)
    target_options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Attack:
        """Build the attack, or say which setting is wrong."""
        if not 0 <= self.rate <= 1:
            raise InvalidRequestError("rate must lie in [0, 1].")
        if self.trigger is None and self.text_trigger is None:
            raise InvalidRequestError("an attack needs a trigger or a text trigger.")
        if self.mode not in ("and", "or"):
            raise InvalidRequestError("mode is and, or.")
        picture = self.trigger and registry.trigger(self.trigger, self.trigger_options)
        text = self.text_trigger and registry.text_trigger(
            self.text_trigger, self.text_trigger_options
        )
        target = registry.target(self.target, self.target_options)
        return Attack(target, picture or None, text or None, self.rate, self.mode)

    @property
    def label(self) -> str:
        """The triggers in one word: `black_patch`, or `black_patch+word:or` for a dual one."""
        if self.trigger and self.text_trigger:
            return f"{self.trigger}+{self.text_trigger}:{self.mode}"
        return self.trigger or self.text_trigger or ""

    def to_json(self) -> dict[str, Any]:
        """The settings as a sidecar holds them."""
        return asdict(self)
