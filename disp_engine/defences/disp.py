"""Diffusion Self-Purification: Algorithm 1 of Wan et al., arXiv 2602.22246.

Notation: M the model with its base projector; M_back the model after tuning on the suspect
data (line 3); for each sample the saliency of its visual tokens (lines 5-9) and the response
rewritten by M_back under the mask (lines 10-13); M_pure the model tuned on those (line 15).

What defeats it: triggers outside the picture (a text trigger survives image masking), and
redundant triggers, each of which alone has little curvature.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disp_engine.context import RunContext
from disp_engine.data.dataset import Dataset, content_sha256
from disp_engine.defences.rewriting import Rewriter, Rewritten
from disp_engine.defences.settings import DispSettings
from disp_engine.errors import InvalidDatasetError
from disp_engine.interfaces import DiffusionModel, Generation
from disp_engine.metrics.evaluator import EvaluationSets, Evaluator
from disp_engine.records import Sample
from disp_engine.sharing import Alone, Sharing
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, Prepared, prepare
from disp_engine.training.projector import projector_sha256, tune_projector, tuning_inputs
from disp_engine.training.settings import FineTuning


@dataclass
class Outcome:
    """What a run leaves: measurements, rewritten samples, and who fell out and why."""

    before: dict[str, Any]
    after: dict[str, Any]
    rewritten: dict[str, Rewritten]
    passed_through: list[Sample]
    quarantined: dict[str, str]
    generation: Generation
    saliency: dict[str, Any]
    hashes: dict[str, str] = field(default_factory=dict)


@dataclass
class DiSP:
    """One run of the defence on one dataset; every stage is kept below `cache_root`."""

    model: DiffusionModel
    training: Dataset
    sets: EvaluationSets
    settings: DispSettings
    seed: int
    cache_root: Path
    context: RunContext
    sharing: Sharing = field(default_factory=Alone)

    def run(self, cache: FeatureCache, prepared: Prepared) -> Outcome:
        """Run Algorithm 1 on what `prepare` returned, measuring the model before and after."""
        hashes = {"base_projector": projector_sha256(self.model.projector)}
        rewriter = self._rewriter(cache, prepared)
        generation = rewriter.generation
        tuned = self._tune("fine_tune", prepared.usable, cache, self.settings.fine_tuning())
        hashes["compromised_projector"] = projector_sha256(self.model.projector)
        stages = self._shared_stages(rewriter, prepared)
        cut = self.settings.micro_batch
        self.sharing.offer(tuned, [s for s in stages if s], len(prepared.usable), cut)
        before = self._evaluate("evaluate_before", cache, generation)
        saliency, scores = self._score(rewriter, prepared)
        rewritten = self._rewrite(rewriter, prepared, scores)
        failed = {r.id: r.failure for r in rewritten.values() if r.failure}
        self._tell_quarantined(failed)
        purified = [
            sample.with_responses(responses)
            for sample in prepared.usable
            if (responses := rewritten[sample.id].responses) is not None
        ]
        if not purified:
            raise InvalidDatasetError("no sample could be rewritten; nothing is left to train on.")
        self._tune("retrain", purified, cache, self.settings.retraining())
        hashes["purified_projector"] = projector_sha256(self.model.projector)
        return Outcome(
            before=before,
            after=self._evaluate("evaluate_after", cache, generation),
            rewritten={s.id: rewritten[s.id] for s in purified},
            passed_through=prepared.without_images,
            quarantined=prepared.failed | failed,
            generation=generation,
            saliency=saliency,
            hashes=hashes,
        )

    def assist(self, cache: FeatureCache, prepared: Prepared) -> None:
        """Do parts of another run's lines 4-13; the tuned projector is there already."""
        rewriter = self._rewriter(cache, prepared)
        self._tune("fine_tune", prepared.usable, cache, self.settings.fine_tuning())
        scores, purified = self._shared_stages(rewriter, prepared)
        if scores:
            rewriter.score(prepared.usable, scores)
        rewriter.rewrite_parts(prepared.usable, scores, purified)

    def prepare(self) -> tuple[FeatureCache, Prepared]:
        """Encode every picture and find out which samples can be used."""
        cache = FeatureCache(self.model, self.cache_root, self.context)
        prepared = prepare(self.training, self.model, cache)
        if not prepared.usable:
            why = next(iter(prepared.failed.values()), "no sample has a picture")
            raise InvalidDatasetError(f"training data: no sample can be used: {why}.")
        self._tell_quarantined(prepared.failed)
        return cache, prepared

    def _tell_quarantined(self, failed: Mapping[str, str]) -> None:
        if failed:
            name, reason = next(iter(failed.items()))
            self.context.message(
                "warn", f"{len(failed)} of the samples fell out; the first is {name}: {reason}"
            )

    def _rewriter(self, cache: FeatureCache, prepared: Prepared) -> Rewriter:
        generation = self.settings.generation(self._response_lengths(prepared))
        return Rewriter(
            self.model, cache, self.settings, generation, self.seed, self.context, self.sharing
        )

    def _response_lengths(self, prepared: Prepared) -> list[int]:
        answers = [turn.text for sample in prepared.usable for turn in sample.turns[1::2]]
        return [len(self.model.tokenise_response(answer)) + 1 for answer in answers]

    @contextmanager
    def _timed(self, name: str, stage: Stage) -> Iterator[Stage]:
        reused, started = stage.complete, time.monotonic()
        self.context.stage(name)
        yield stage
        self.context.stage_done(name, time.monotonic() - started, reused)

    def _tune(
        self, name: str, samples: list[Sample], cache: FeatureCache, settings: FineTuning
    ) -> Stage:
        inputs = tuning_inputs(self.model, content_sha256(samples), settings, self.seed)
        with self._timed(name, Stage(self.cache_root, "tune", inputs)) as stage:
            tune_projector(self.model, samples, cache, settings, self.seed, stage, self.context)
        return stage

    def _evaluate(self, name: str, cache: FeatureCache, generation: Generation) -> dict[str, Any]:
        inputs = self._inputs(sets=self.sets.sha256, generation=vars(generation))
        evaluator = Evaluator(
            self.model, cache, generation, self.settings.micro_batch, self.context
        )
        with self._timed(name, Stage(self.cache_root, "evaluate", inputs)) as stage:
            return evaluator.run(self.sets, stage)

    def _score(self, rewriter: Rewriter, prepared: Prepared) -> tuple[dict[str, Any], Stage | None]:
        scores, _ = self._shared_stages(rewriter, prepared)
        if scores is None:
            return {"estimator": None}, None
        with self._timed("saliency", scores) as stage:
            return rewriter.score(prepared.usable, stage), stage

    def _rewrite(
        self, rewriter: Rewriter, prepared: Prepared, scores: Stage | None
    ) -> dict[str, Rewritten]:
        _, purified = self._shared_stages(rewriter, prepared)
        with self._timed("purify", purified) as stage:
            return rewriter.rewrite(prepared.usable, scores, stage)

    def _shared_stages(self, rewriter: Rewriter, prepared: Prepared) -> tuple[Stage | None, Stage]:
        """Where scores, if there are to be any, and new responses are kept."""
        data = content_sha256(prepared.usable)
        scores = None
        if self.settings.masking == "saliency":
            inputs = self._inputs(data=data, saliency=vars(rewriter.saliency_settings))
            scores = Stage(self.cache_root, "saliency", inputs)
        inputs = self._inputs(
            data=data,
            scores=scores.key if scores else None,
            masking=self.settings.masking,
            ratio=self.settings.mask_ratio,
            generation=vars(rewriter.generation),
            seed=self.seed,
        )
        return scores, Stage(self.cache_root, "purify", inputs)

    def _inputs(self, **others: Any) -> dict[str, Any]:
        """The model as it now is, the micro-batch (kept files are cut by it), and `others`."""
        return {
            "model": self.model.revision,
            "device": self.model.device.type,
            "projector": projector_sha256(self.model.projector),
            "micro_batch": self.settings.micro_batch,
            **others,
        }
