"""BYE: find poisoned samples by how narrowly the model looks (Rong et al., arXiv 2505.16916).

BYE reads an autoregressive model's attention at the last prompt position. A masked diffusion model
has no such position; here the rows are those of the first response block, all masked, before
anything is denoised. Each layer's attention to the visual tokens is averaged over heads and rows
and made to sum to one; its entropy, over ln(Lv), is the layer's score of the sample. Layers whose
scores fall into two groups are averaged, and the group that looks more narrowly is removed.

A mixture of two always finds two groups. So nothing is removed unless two explain the scores
better than one (BIC), lie apart (tau), and the smaller is no handful of outliers.

What defeats it: triggers over the whole picture, which nothing looks at narrowly.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float

from disp_engine.context import check
from disp_engine.data.dataset import content_sha256
from disp_engine.defences.defence import Defence, Purified
from disp_engine.defences.settings import DefenceSettings
from disp_engine.detection.attention_entropy import visual_entropies
from disp_engine.detection.mixtures import FEWEST, mixture, separation, two_groups
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import AttendingModel, Generation
from disp_engine.records import Sample
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, Prepared


@dataclass(frozen=True)
class ByeSettings(DefenceSettings):
    """`tau` is the separation |mu1 - mu2| / sqrt(sigma1^2 + sigma2^2) that groups must have (the
    paper's 2); `least_weight` the smallest share of samples that is a group.
    """

    tau: float = 2.0
    least_weight: float = 0.01

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        self._check_positive("tau")
        if not 0 <= self.least_weight < 0.5:
            raise InvalidRequestError("hyperparameters: least_weight must lie in [0, 0.5).")


@dataclass
class Bye(Defence[ByeSettings]):
    """Remove the group of low entropy and tune on the rest."""

    settings_type: ClassVar[type[DefenceSettings]] = ByeSettings
    needs: ClassVar[tuple[type, str]] = (AttendingModel, "a masked model that shows its attention")

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Score every sample's first prompt, and split."""
        inputs = self.inputs(data=content_sha256(prepared.usable), generation=asdict(generation))
        with self.stage("purify", inputs, kind="entropy") as stage:
            entropies = self._entropies(prepared.usable, cache, generation, stage)
            suspicious = narrow_group(entropies, self.settings)
        removed = {
            s.id: "attention as narrow as that of a group apart"
            for s, out in zip(prepared.usable, suspicious.tolist(), strict=True)
            if out
        }
        return Purified([s for s in prepared.usable if s.id not in removed], removed=removed)

    def _entropies(
        self, samples: Sequence[Sample], cache: FeatureCache, generation: Generation, stage: Stage
    ) -> Float[np.ndarray, "S N"]:
        rows: list[list[float]] = []
        for start in range(0, len(samples), self.settings.micro_batch):
            file = f"{start:07d}.json"
            if not stage.has(file):
                batch = samples[start : start + self.settings.micro_batch]
                stage.write_json(file, self._batch(batch, cache, generation))
                check(self.context)
            rows += stage.read_json(file)
            self.context.progress(len(rows), len(samples), "samples")
        stage.finish()
        return np.array(rows)

    @torch.no_grad()
    def _batch(
        self, samples: Sequence[Sample], cache: FeatureCache, generation: Generation
    ) -> list[list[float]]:
        model = self.model
        if not isinstance(model, AttendingModel):
            raise InvalidRequestError("method: bye needs a model that shows its attention.")
        prompts = []
        for sample in samples:
            first = sample.turns[:1]
            prompts.append(model.embed(model.tokenise_prompt(first), cache.of(sample, first)))
        return [row.tolist() for row in visual_entropies(model, prompts, generation)]


def narrow_group(
    entropies: Float[np.ndarray, "S N"], settings: ByeSettings
) -> Bool[np.ndarray, " S"]:
    """Mark the samples of the low group of the sensitive layers' mean, if there is one."""
    nobody = np.zeros(len(entropies), dtype=bool)
    if len(entropies) < FEWEST:
        return nobody
    layers = entropies.T
    sensitive = [layer for layer in layers if separation(mixture(layer, 2)) >= settings.tau]
    if not sensitive:
        return nobody
    scores = np.mean(sensitive, axis=0)
    two = two_groups(scores, settings.tau, settings.least_weight)
    if two is None:
        return nobody
    marked: np.ndarray = two.predict(scores[:, None]) == two.means_[:, 0].argmin()
    return marked
