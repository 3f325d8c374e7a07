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
        rewriter = Rewriter(self.model, cache, self.settings, generation, self.seed, self.context)
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

    def _score(self, rewriter: Rewriter, prepared: Prepared) -> tuple[dict[str, Any], Stage | None]:
        data = content_sha256(prepared.usable)
        inputs = self.inputs(data=data, saliency=vars(rewriter.saliency_settings))
        if self.settings.masking != "saliency":
            return {"estimator": None}, None
        with self.stage("saliency", inputs) as stage:
            return rewriter.score(prepared.usable, stage), stage

    def _rewrite(
        self, rewriter: Rewriter, prepared: Prepared, scores: Stage | None
    ) -> dict[str, Rewritten]:
        inputs = self.inputs(
            data=content_sha256(prepared.usable),
            scores=scores.key if scores else None,
            masking=self.settings.masking,
            ratio=self.settings.mask_ratio,
            generation=asdict(rewriter.generation),
            seed=self.seed,
        )
        with self.stage("purify", inputs) as stage:
            return rewriter.rewrite(prepared.usable, scores, stage)
