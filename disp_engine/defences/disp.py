"""Diffusion Self-Purification: Algorithm 1 of Wan et al., arXiv 2602.22246.

Notation: M the model with its base projector; M_back the model after tuning on the suspect
data (line 3); for each sample the saliency of its visual tokens (lines 5-9) and the response
rewritten by M_back under the mask (lines 10-13); M_pure the model tuned on those (line 15).

What defeats it: triggers outside the picture (a text trigger survives image masking), and
redundant triggers, each of which alone has little curvature.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from disp_engine.data.dataset import content_sha256
from disp_engine.defences.defence import Defence, Outcome, Purified
from disp_engine.defences.rewriting import Rewriter, Rewritten
from disp_engine.defences.settings import DefenceSettings, DispSettings
from disp_engine.interfaces import Generation
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, Prepared

__all__ = ["DiSP", "Outcome"]


@dataclass
class DiSP(Defence[DispSettings]):
    """Rewrite every response under a mask, and tune on what was rewritten."""

    settings_type: ClassVar[type[DefenceSettings]] = DispSettings

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Lines 4-14."""
        rewriter = self._rewriter(cache, generation)
        saliency, scores = self._score(rewriter, prepared)
        rewritten = self._rewrite(rewriter, prepared, scores)
        purified = [
            sample.with_responses(responses)
            for sample in prepared.usable
            if (responses := rewritten[sample.id].responses) is not None
        ]
        return Purified(
            samples=purified,
            rewritten={s.id: rewritten[s.id] for s in purified},
            failed={r.id: r.failure for r in rewritten.values() if r.failure},
            saliency=saliency,
        )

    def share(
        self, cache: FeatureCache, prepared: Prepared, generation: Generation, tuned: Stage
    ) -> None:
        """Let other workers do parts of lines 4-14."""
        stages = self._shared_stages(self._rewriter(cache, generation), prepared)
        cut = self.settings.micro_batch
        self.sharing.offer(tuned, [s for s in stages if s], len(prepared.usable), cut)

    def assist(self, cache: FeatureCache, prepared: Prepared) -> None:
        """Do parts of another run's lines 4-14; the tuned projector is there already."""
        rewriter = self._rewriter(cache, self.generation(prepared))
        self.compromise(cache, prepared)
        scores, purified = self._shared_stages(rewriter, prepared)
        if scores:
            rewriter.score(prepared.usable, scores)
        rewriter.rewrite_parts(prepared.usable, scores, purified)

    def _rewriter(self, cache: FeatureCache, generation: Generation) -> Rewriter:
        return Rewriter(
            self.model, cache, self.settings, generation, self.seed, self.context, self.sharing
        )

    def _score(self, rewriter: Rewriter, prepared: Prepared) -> tuple[dict[str, Any], Stage | None]:
        scores, _ = self._shared_stages(rewriter, prepared)
        if scores is None:
            return {"estimator": None}, None
        with self.timed("saliency", scores) as stage:
            return rewriter.score(prepared.usable, stage), stage

    def _rewrite(
        self, rewriter: Rewriter, prepared: Prepared, scores: Stage | None
    ) -> dict[str, Rewritten]:
        _, purified = self._shared_stages(rewriter, prepared)
        with self.timed("purify", purified) as stage:
            return rewriter.rewrite(prepared.usable, scores, stage)

    def _shared_stages(self, rewriter: Rewriter, prepared: Prepared) -> tuple[Stage | None, Stage]:
        """Where scores, if there are to be any, and new responses are kept."""
        data = content_sha256(prepared.usable)
        scores = None
        if self.settings.masking == "saliency":
            inputs = self.inputs(data=data, saliency=vars(rewriter.saliency_settings))
            scores = Stage(self.cache_root, "saliency", inputs)
        inputs = self.inputs(
            data=data,
            scores=scores.key if scores else None,
            masking=self.settings.masking,
            ratio=self.settings.mask_ratio,
            generation=asdict(rewriter.generation),
            seed=self.seed,
        )
        return scores, Stage(self.cache_root, "purify", inputs)
