"""Jobs whose defence is a guard: the tuned model is left as it is and measured with and without it.

What defeats it: a guard that is not put before the model that was measured. The artifacts hold the
tuned projector, backdoor and all, beside what the guard needs.
"""

from abc import abstractmethod
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

from disp_engine.defences.defence import Defence, GuardOutcome, Outcome, Purified
from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import Guard
from disp_engine.guards.undefended import UndefendedSettings
from disp_engine.interfaces import AutoregressiveModel, Generation
from disp_engine.metrics.guarding import RATES, GuardEvaluator
from disp_engine.models.projector import load_projector
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, Prepared

G = TypeVar("G", bound="GuardingSettings")


@dataclass(frozen=True)
class GuardingSettings(DefenceSettings):
    """A guard tunes nothing a second time, so that the settings of that have no effect."""

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        if self.start != "compromised":
            raise InvalidRequestError("hyperparameters: a guard starts from `compromised`.")


@dataclass
class Guarding(Defence[G]):
    """Keep the data, leave the projector as tuned, and measure it guarded."""

    needs: ClassVar[tuple[type, str]] = (AutoregressiveModel, "an autoregressive model")
    guarded: GuardOutcome | None = field(default=None, init=False)

    @property
    def causal(self) -> AutoregressiveModel:
        """The model, which `prepare` has found to be one."""
        assert isinstance(self.model, AutoregressiveModel)
        return self.model

    @abstractmethod
    def guard(self) -> tuple[Guard, Path | None]:
        """The guard of the model as it now is, and where its calibration lies if it has one."""

    def run(self, cache: FeatureCache, prepared: Prepared) -> Outcome:
        """Compromise, measure, put the guard before the model, and measure again."""
        return replace(super().run(cache, prepared), guard=self.guarded)

    def compromise(self, cache: FeatureCache, prepared: Prepared) -> Stage:
        """Tune, and take the projector as its file will hold it: in the model's dtype."""
        stage = super().compromise(cache, prepared)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "projector.safetensors"
            self.model.save_projector(path)
            load_projector(self.model.projector, self.model.projector_prefix, path)
        return stage

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Keep everything."""
        return Purified(list(prepared.usable))

    def repair(self, purified: Purified, cache: FeatureCache) -> None:
        """Do nothing."""

    def evaluate_after(self, cache: FeatureCache, generation: Generation) -> dict[str, Any]:
        """Ask the same questions under the guard, and in turn without it, for the latency."""
        guard, calibration = self.guard()
        inputs = self.inputs(
            sets=self.sets.sha256, settings=asdict(self.settings), length=generation.length,
            guard=type(guard).__name__, seed=self.seed,
        )  # fmt: skip
        with self.stage("evaluate_after", inputs, kind="guarded_by_set") as stage:
            bare = UndefendedSettings().build(self.causal)
            given = (bare, guard, generation.length, self.settings.micro_batch, self.context)
            found = GuardEvaluator(*given).run(self.sets, stage)
        latency = {name: found[name] for name in ("seconds_per_question", "latency_ratio")}
        measured = {name: found[name] for name in ("detection", "removed_tokens", "trade_off")}
        self.guarded = GuardOutcome(
            type(guard).__name__.lower(), measured, latency | {"batch": self.settings.micro_batch},
            calibration,
        )  # fmt: skip
        return {name: found[name] for name in RATES}
