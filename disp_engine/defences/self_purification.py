"""DiSP's scheme on autoregressive models: regenerate every response under a guard, and tune on it.

As Algorithm 1 of Wan et al., arXiv 2602.22246, with a causal model in place of the diffusion model
and PurMM's zeroed tokens (or CleanSight's hidden ones) in place of the salient tokens' mask:
derived, neither paper has it. M_back is the model after tuning on the suspect data; what it answers
without the tokens that hold its attention stands in place of the given responses.

What defeats it: what defeats the guard; triggers in the text; answers that need what is hidden.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch

from disp_engine import registry
from disp_engine.data.dataset import content_sha256
from disp_engine.defences.calibration import calibrated, divided
from disp_engine.defences.defence import Defence, Purified
from disp_engine.defences.regeneration import Regenerated, Regenerator
from disp_engine.defences.rewriting import resolved
from disp_engine.defences.settings import DefenceSettings
from disp_engine.detection.examination import Examination, verdict_of
from disp_engine.detection.findings import Findings, Map, investigate
from disp_engine.detection.heat import heat_map
from disp_engine.detection.interfaces import Evidence
from disp_engine.detection.verdict import Verdict
from disp_engine.errors import InvalidRequestError
from disp_engine.guards.cleansight import CalibrationSettings
from disp_engine.guards.guard import Cell, Guard
from disp_engine.guards.purmm import PurMMSettings
from disp_engine.interfaces import AutoregressiveModel, Generation
from disp_engine.records import Sample
from disp_engine.training.examples import FeatureCache, Prepared


@dataclass(frozen=True)
class SelfPurificationSettings(DefenceSettings):
    """Which `guard` hides the tokens, and which responses are replaced.

    `cleansight` is calibrated on the request's clean set. `replace_only_flagged` leaves what the
    verdict does not flag as it came, which is everything in clean data. The others are the guards'.
    """

    guard: str = "purmm"
    replace_only_flagged: bool = False
    rows: str = "answer"
    clustering: str = "kmeans"
    reference: str = "deep_half"
    contrast: float | None = None
    rounds: int = 1
    first_layer: int | None = None
    last_layer: int | None = None
    percentile: float = 99.0
    tau: float | None = None

    @property
    def of_purmm(self) -> PurMMSettings:
        """PurMM's own settings."""
        return PurMMSettings(self.rows, self.clustering, self.reference, self.contrast, self.rounds)

    @property
    def of_cleansight(self) -> CalibrationSettings:
        """The calibration's own settings."""
        return CalibrationSettings(self.first_layer, self.last_layer, self.percentile, self.tau)

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        self.of_purmm.check()
        if self.guard not in ("purmm", "cleansight"):
            raise InvalidRequestError("hyperparameters: guard is purmm, cleansight.")


@dataclass
class SelfPurification(Defence[SelfPurificationSettings]):
    """Replace responses by the model's own purified answers, and tune on those."""

    settings_type: ClassVar[type[DefenceSettings]] = SelfPurificationSettings
    needs: ClassVar[tuple[type, str]] = (
        AutoregressiveModel,
        "an autoregressive model; `disp` is its like for diffusion models",
    )

    @property
    def causal(self) -> AutoregressiveModel:
        """The model, which `prepare` has found to be one."""
        assert isinstance(self.model, AutoregressiveModel)
        return self.model

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Answer anew, judge by what the answers differ in, and replace."""
        done = self._regenerated(cache, prepared, generation)
        verdict = self._verdict(cache, prepared, generation, done)
        maps = {name: heat(one.removed) for name, one in done.items() if _one_tile(one.removed)}
        findings = investigate(Findings(prepared.usable, verdict, maps), self.training)
        rewritten = {name: one.rewritten for name, one in done.items()}
        if self.settings.replace_only_flagged:
            flagged = zip(prepared.usable, verdict.flagged.tolist(), strict=True)
            chosen = {sample.id for sample, bad in flagged if bad}
            rewritten = {name: one for name, one in rewritten.items() if name in chosen}
        return Purified(
            samples=resolved(prepared.usable, rewritten),
            rewritten={name: one for name, one in rewritten.items() if one.responses is not None},
            failed={name: one.failure for name, one in rewritten.items() if one.failure},
            saliency={"estimator": self.settings.guard},
            findings=findings,
        )

    def _guard(self) -> Guard:
        if self.settings.guard == "purmm":
            return self.settings.of_purmm.build(self.causal)
        clean, _ = divided(self.sets.clean, 1.0, self.seed)
        return calibrated(self, self.causal, clean, self.settings.of_cleansight)[0]

    def _regenerated(
        self, cache: FeatureCache, prepared: Prepared, generation: Generation
    ) -> dict[str, Regenerated]:
        guard = self._guard()
        clean = self.sets.clean.sha256 if self.sets.clean else None
        inputs = self.inputs(
            data=content_sha256(prepared.usable),
            guard=asdict(
                self.settings.of_purmm
                if self.settings.guard == "purmm"
                else self.settings.of_cleansight
            ),
            clean=clean if self.settings.guard == "cleansight" else None,
            length=generation.length,
        )
        with self.stage("purify", inputs, kind="regenerate") as stage:
            cut = self.settings.micro_batch
            regenerator = Regenerator(guard, cache, generation.length, cut, self.context)
            return regenerator.run(prepared.usable, stage)

    def _verdict(
        self,
        cache: FeatureCache,
        prepared: Prepared,
        generation: Generation,
        done: Mapping[str, Regenerated],
    ) -> Verdict:
        """Ask the detectors that need neither noise nor saliency."""
        first = {name: one.first for name, one in done.items()}

        def gather(start: int, batch: Sequence[Sample]) -> Evidence:
            firsts = [first[sample.id] for sample in batch]
            given = (self.model, cache, batch, generation, self.seed)
            return replace(Evidence(*given), rewritten=firsts, base=self.base)

        inputs = self.inputs(
            data=content_sha256(prepared.usable), rewritten=first, base=self.base_sha256,
            detectors=list(registry.DETECTORS),
        )  # fmt: skip
        with self.stage("detect", inputs) as stage:
            examination = Examination(gather, self.settings.micro_batch, self.context)
            return verdict_of(examination.run(prepared.usable, stage))


def heat(removed: Sequence[Cell]) -> Map:
    """Tokens that were kept from the model, as a map of the picture; each weighs the same."""
    boxes = [
        [c.column / c.columns, c.row / c.rows, (c.column + 1) / c.columns, (c.row + 1) / c.rows]
        for c in removed
    ]
    return heat_map(torch.ones(len(boxes)), torch.tensor(boxes).view(-1, 4))


def _one_tile(removed: Sequence[Cell]) -> bool:
    """Whether the cells lie on the whole of the first picture and not on crops of it."""
    return all((cell.picture, cell.tile) == (0, 0) for cell in removed)
