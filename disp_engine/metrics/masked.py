"""Answers under masked pictures: DiSP's purified inference, at test time (Figure 2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from disp_engine.interfaces import DiffusionModel
from disp_engine.metrics.evaluator import Evaluator
from disp_engine.records import Embedded
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency
from disp_engine.saliency.masking import most_salient


@dataclass(frozen=True)
class MaskedEvaluator(Evaluator):
    """Hides the `mask_ratio` most salient visual tokens of every prompt, to the last step."""

    mask_ratio: float = 0.3
    saliency: SaliencySettings = field(default_factory=SaliencySettings)

    def shown(self, prompts: Sequence[Embedded]) -> Sequence[Embedded]:
        """The prompts with their most salient tokens masked (Eqs. 5-10)."""
        model = self.model
        assert isinstance(model, DiffusionModel)
        scored = estimate_saliency(model, prompts, self.saliency)
        return [
            model.hide(prompt, most_salient(s.scores, self.mask_ratio))
            for prompt, s in zip(prompts, scored, strict=True)
        ]
