"""Diffusion Self-Purification: Algorithm 1 of Wan et al., arXiv 2602.22246.

Notation: M the model with its base projector; M_back the model after tuning on the suspect
data (line 3); for each sample the saliency of its visual tokens (lines 5-9) and the response
rewritten by M_back under the mask (lines 10-13); M_pure the model tuned on those (line 15).

What defeats it: triggers outside the picture (a text trigger survives image masking), and
redundant triggers, each of which alone has little curvature (for these there are other scores,
`saliency.path` and `saliency.sufficiency`, which are not the paper's).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from disp_engine import registry
from disp_engine.data.dataset import content_sha256
from disp_engine.defences.defence import Defence, Outcome, Purified
from disp_engine.defences.rewriting import Rewriter, Rewritten, resolved
from disp_engine.defences.settings import DefenceSettings, DispSettings
from disp_engine.detection.examination import Examination, verdict_of
from disp_engine.detection.findings import Findings, heat_maps, investigate
from disp_engine.detection.interfaces import Evidence
from disp_engine.detection.verdict import Verdict
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import DiffusionModel, Generation, MaskedDenoiser
from disp_engine.records import Sample
from disp_engine.sharing import Alone
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, Prepared

__all__ = ["DiSP", "Outcome"]

COMPARED = 32
"""Samples beside the suspects that are scored where only suspects are rewritten."""


@dataclass
class DiSP(Defence[DispSettings]):
    """Rewrite every response under a mask, and tune on what was rewritten."""

    settings_type: ClassVar[type[DefenceSettings]] = DispSettings
    needs: ClassVar[tuple[type, str]] = (
        DiffusionModel,
        "a diffusion model; `self_purification` is its like for autoregressive ones",
    )

    @property
    def diffusion(self) -> DiffusionModel:
        """The model, which `prepare` has found to be one."""
        assert isinstance(self.model, DiffusionModel)
        return self.model

    def prepare(self) -> tuple[FeatureCache, Prepared]:
        """Refuse to hide text where nothing can stand in its place; else as every defence."""
        if self.settings.text_mask_ratio and not isinstance(self.model, MaskedDenoiser):
            raise InvalidRequestError(
                "hyperparameters: text_mask_ratio needs a model with a mask embedding."
            )
        return super().prepare()

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Lines 4-14, for all samples or for those that the verdict suspects."""
        rewriter = self._rewriter(cache, generation)
        if self.settings.rewrite_above is not None:
            return self._purify_suspects(rewriter, prepared)
        samples = prepared.usable
        saliency, scores = self._score(rewriter, samples)
        rewritten = self._rewrite(rewriter, samples, scores)
        findings = None
        if "detect" in self.asked:
            verdict = self._detect(rewriter, prepared, scores, rewritten)
            findings = self._findings(rewriter, prepared, samples, scores, verdict)
        return _purified(prepared, rewritten, saliency, findings)

    def _purify_suspects(self, rewriter: Rewriter, prepared: Prepared) -> Purified:
        """The verdict of those detectors that need no scores; then lines 4-14 for its suspects.

        Some other samples are scored too: what is salient there as well is not the trigger.
        """
        if "detect" not in self.asked:
            raise InvalidRequestError("stages: rewrite_above needs detect.")
        verdict = self._detect(rewriter, prepared, None, None)
        chosen = suspects(verdict, prepared, self.settings)
        rewriter = replace(rewriter, chosen=chosen, sharing=Alone())
        samples = with_some_others(prepared.usable, chosen)
        saliency, scores = self._score(rewriter, samples)
        rewritten = self._rewrite(rewriter, samples, scores)
        findings = self._findings(rewriter, prepared, samples, scores, verdict)
        return _purified(prepared, rewritten, saliency, findings)

    def examine(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Lines 4-9 and the verdict; without new responses, of the detectors that need none."""
        if "detect" not in self.asked:
            return super().examine(cache, prepared, generation)
        rewriter = self._rewriter(cache, generation)
        saliency, scores = self._score(rewriter, prepared.usable)
        verdict = self._detect(rewriter, prepared, scores, None)
        findings = self._findings(rewriter, prepared, prepared.usable, scores, verdict)
        return Purified(list(prepared.usable), saliency=saliency, findings=findings)

    def _detect(
        self,
        rewriter: Rewriter,
        prepared: Prepared,
        scores: Stage | None,
        rewritten: Mapping[str, Rewritten] | None,
    ) -> Verdict:
        """Ask the detectors; without new responses those that compare them are not asked."""

        def gather(start: int, batch: Sequence[Sample]) -> Evidence:
            return Evidence(
                self.model,
                rewriter.cache,
                batch,
                rewriter.generation,
                self.seed,
                self.settings.mask_ratio,
                rewriter.saliency_at(start, scores) if scores else None,
                None if rewritten is None else [_first(rewritten[s.id]) for s in batch],
                self.base or None,
            )

        _, purified = self._stages(rewriter, prepared.usable)
        inputs = self.inputs(
            rewritten=None if rewritten is None else purified.key,
            base=self.base_sha256,
            detectors=list(registry.DETECTORS),
            data=content_sha256(prepared.usable),
            scores=scores.key if scores else None,
            ratio=self.settings.mask_ratio,
            generation=asdict(rewriter.generation),
            seed=self.seed,
        )
        with self.stage("detect", inputs) as stage:
            examination = Examination(gather, self.settings.micro_batch, self.context)
            return verdict_of(examination.run(prepared.usable, stage))

    def _findings(
        self,
        rewriter: Rewriter,
        prepared: Prepared,
        scored: Sequence[Sample],
        scores: Stage | None,
        verdict: Verdict,
    ) -> Findings:
        """The verdict with maps of the saliency of what was scored, trigger and target."""
        found = Findings(prepared.usable, verdict)
        if scores is not None:
            starts = range(0, len(scored), self.settings.micro_batch)
            saliency = (s for start in starts for s in rewriter.saliency_at(start, scores))
            maps = heat_maps(self.diffusion, rewriter.cache, scored, saliency)
            found = replace(found, maps=maps)
        return investigate(found, self.training)

    def share(
        self, cache: FeatureCache, prepared: Prepared, generation: Generation, tuned: Stage
    ) -> None:
        """Let other workers do parts of lines 4-14, unless a verdict has to choose first."""
        purifies = "purify" in self.asked
        chooses = purifies and self.settings.rewrite_above is not None
        if chooses or not self.asked & {"detect", "purify"}:
            return
        scores, purified = self._stages(self._rewriter(cache, generation), prepared.usable)
        stages = [scores, purified] if purifies else [scores]
        cut = self.settings.micro_batch
        self.sharing.offer(tuned, [s for s in stages if s], len(prepared.usable), cut)

    def assist(self, cache: FeatureCache, prepared: Prepared) -> None:
        """Do parts of another run's lines 4-14; the tuned projector is there already."""
        rewriter = self._rewriter(cache, self.generation(prepared))
        self.compromise(cache, prepared)
        scores, purified = self._stages(rewriter, prepared.usable)
        if scores:
            rewriter.score(prepared.usable, scores)
        if "purify" in self.asked:
            rewriter.rewrite_parts(prepared.usable, scores, purified)

    def _rewriter(self, cache: FeatureCache, generation: Generation) -> Rewriter:
        return Rewriter(
            self.diffusion, cache, self.settings, generation, self.seed, self.context, self.sharing,
            self.gate,
        )  # fmt: skip

    def _score(
        self, rewriter: Rewriter, samples: Sequence[Sample]
    ) -> tuple[dict[str, Any], Stage | None]:
        scores, _ = self._stages(rewriter, samples)
        if scores is None or not samples:
            return {"estimator": None}, None
        with self.timed("saliency", scores) as stage:
            return rewriter.score(samples, stage), stage

    def _rewrite(
        self, rewriter: Rewriter, samples: Sequence[Sample], scores: Stage | None
    ) -> dict[str, Rewritten]:
        _, purified = self._stages(rewriter, samples)
        with self.timed("purify", purified) as stage:
            return rewriter.rewrite(samples, scores, stage)

    def _stages(self, rewriter: Rewriter, samples: Sequence[Sample]) -> tuple[Stage | None, Stage]:
        """Where scores, if there are to be any, and new responses are kept."""
        data = content_sha256(samples)
        scores = None
        if self.settings.masking == "saliency":
            inputs = self.inputs(data=data, saliency=vars(rewriter.saliency_settings))
            scores = Stage(self.cache_root, "saliency", inputs)
        inputs = self.inputs(
            data=data,
            scores=scores.key if scores else None,
            masking=self.settings.masking,
            ratio=self.settings.mask_ratio,
            text_ratio=self.settings.text_mask_ratio,
            generation=asdict(rewriter.generation),
            seed=self.seed,
            **({} if rewriter.chosen is None else {"chosen": sorted(rewriter.chosen)}),
        )
        return scores, Stage(self.cache_root, "purify", inputs)


def _purified(
    prepared: Prepared,
    rewritten: Mapping[str, Rewritten],
    saliency: dict[str, Any],
    findings: Findings | None,
) -> Purified:
    return Purified(
        samples=resolved(prepared.usable, rewritten),
        rewritten={name: r for name, r in rewritten.items() if r.responses is not None},
        failed={r.id: r.failure for r in rewritten.values() if r.failure},
        saliency=saliency,
        findings=findings,
    )


def suspects(verdict: Verdict, prepared: Prepared, settings: DispSettings) -> frozenset[str]:
    """The samples to rewrite: flagged ones, or those beyond the given number of deviations.

    A sample that could not be scored is rewritten whenever any is.
    """
    marked = verdict.flagged
    if isinstance(settings.rewrite_above, int | float):
        marked = np.nan_to_num(verdict.scores, nan=-np.inf) > settings.rewrite_above
    if marked.any():
        marked = marked | ~np.isfinite(verdict.scores)
    return frozenset(s.id for s, out in zip(prepared.usable, marked.tolist(), strict=True) if out)


def with_some_others(samples: Sequence[Sample], chosen: frozenset[str]) -> list[Sample]:
    """The chosen samples and, evenly spread, up to COMPARED others; nothing if none is chosen."""
    others = [sample.id for sample in samples if sample.id not in chosen]
    some = set(others[:: math.ceil(len(others) / COMPARED) or 1])
    return [s for s in samples if chosen and (s.id in chosen or s.id in some)]


def _first(done: Rewritten) -> str | None:
    return done.responses[0] if done.responses else None
