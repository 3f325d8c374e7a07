"""What every defence does to a suspect dataset on a model, and what it leaves.

Notation of Wan et al., arXiv 2602.22246: M the model with its base projector; M_back the model
after tuning on the suspect data; M_pure the model that the defence leaves.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from disp_engine.context import RunContext
from disp_engine.data.dataset import Dataset, content_sha256
from disp_engine.defences.rewriting import Rewritten
from disp_engine.defences.settings import DefenceSettings
from disp_engine.detection.findings import Findings
from disp_engine.detection.probe import Probe, probe
from disp_engine.errors import InvalidDatasetError, InvalidRequestError
from disp_engine.gate import Comparison, Gate
from disp_engine.interfaces import Generation, RememberingDenoiser, VisualModel
from disp_engine.metrics.evaluation import measure
from disp_engine.metrics.evaluator import EvaluationSets, Evaluator
from disp_engine.records import Sample
from disp_engine.responses import respond
from disp_engine.sharing import Alone, Sharing
from disp_engine.spec import ALL_STAGES, AskedStage
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, Prepared, prepare
from disp_engine.training.planning import gauge_of, planned_micro_batch
from disp_engine.training.projector import (
    Objective,
    projector_sha256,
    restore,
    snapshot,
    tune_projector,
    tuning_inputs,
)
from disp_engine.training.ranks import Ranks
from disp_engine.training.settings import FineTuning

S = TypeVar("S", bound=DefenceSettings)


@dataclass
class Purified:
    """What a defence makes of the dataset.

    `samples` are trained on; of these `rewritten` tells the new responses, by id. `removed` and
    `failed` give the reason why a sample is not among them. `saliency` and `findings` are for the
    report.
    """

    samples: list[Sample]
    rewritten: dict[str, Rewritten] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    saliency: dict[str, Any] = field(default_factory=dict)
    findings: Findings | None = None


@dataclass(frozen=True)
class GuardOutcome:
    """What a guard was measured to do: detection and tokens removed; times, which no run repeats.

    `calibration` is the file by which the guard can be put before the model again, if it needs one.
    """

    name: str
    measured: Mapping[str, Any]
    latency: Mapping[str, Any]
    calibration: Path | None = None


@dataclass
class Outcome:
    """What a run leaves: measurements, what became of the samples, and who fell out and why.

    The rates of a measurement that was not asked for are null. `kept` samples are in the output as
    they came. `recovered` tells of the recovered trigger before and after, where one was recovered:
    its ASR and the attribution to its parts. `guard` tells of the guard under which `after` was
    measured, `shortcuts` how often those of the generation differed.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    rewritten: dict[str, Rewritten]
    passed_through: list[Sample]
    quarantined: dict[str, str]
    generation: Generation
    saliency: dict[str, Any]
    hashes: dict[str, str] = field(default_factory=dict)
    kept: list[Sample] = field(default_factory=list)
    removed: dict[str, str] = field(default_factory=dict)
    findings: Findings | None = None
    recovered: dict[str, Any] | None = None
    guard: GuardOutcome | None = None
    shortcuts: Mapping[str, Comparison] = field(default_factory=dict)


@dataclass
class Defence(ABC, Generic[S]):
    """One run of a defence on one dataset; every stage is kept below `cache_root`.

    A defence is a `purify` of the dataset, and a `repair` of the projector where that is not a
    second tuning on what was purified. `objective` stands in place of the family's own in the
    first tuning, for attackers who control the training. Of what follows the first tuning only the
    `asked` parts are done.
    """

    settings_type: ClassVar[type[DefenceSettings]] = DefenceSettings
    needs: ClassVar[tuple[type, str]] = (VisualModel, "a model with a visual projector")
    """The protocol that a model must fulfil, and how to say so."""

    model: VisualModel
    training: Dataset
    sets: EvaluationSets
    settings: S
    seed: int
    cache_root: Path
    context: RunContext
    objective: Objective | None = None
    sharing: Sharing = field(default_factory=Alone)
    ranks: Ranks | None = None
    asked: frozenset[AskedStage] = ALL_STAGES
    base: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    base_sha256: str = field(default="", init=False)

    @abstractmethod
    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Decide what the suspect samples become; the model is M_back."""

    def examine(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Leave the samples as they are, with a verdict where one is asked for."""
        if "detect" in self.asked:
            raise InvalidRequestError(f"stages: {type(self).__name__} has no verdict.")
        return Purified(list(prepared.usable))

    def prepare(self) -> tuple[FeatureCache, Prepared]:
        """Encode every picture and find out which samples can be used."""
        kind, described = self.needs
        if not isinstance(self.model, kind):
            raise InvalidRequestError(f"method: {type(self).__name__} needs {described}.")
        cache = FeatureCache(self.model, self.cache_root, self.context)
        prepared = prepare(self.training, self.model, cache)
        if not prepared.usable:
            why = next(iter(prepared.failed.values()), "no sample has a picture")
            raise InvalidDatasetError(f"training data: no sample can be used: {why}.")
        self._tell_quarantined(prepared.failed)
        self._check_shortcuts()
        if self.settings.fit_memory:
            self._fit_memory(cache, prepared)
        return cache, prepared

    def _check_shortcuts(self) -> None:
        """Refuse those that the model does not take before anything is tuned."""
        generation = self.settings.generation([])  # whatever its length
        if generation.exact:
            return
        if not isinstance(self.model, RememberingDenoiser):
            raise InvalidRequestError(
                "hyperparameters: kv_cache and parallel_threshold are for masked diffusion."
            )
        respond(self.model, [], generation)

    def _fit_memory(self, cache: FeatureCache, prepared: Prepared) -> None:
        """Run as many samples at once as fit; a resumed run goes on with the number it had.

        Processes that tune together each get a share of a batch, so no more are run at once.
        """
        most, gauge = self._most_at_once(), gauge_of(self.model.device)
        inputs = {
            "model": self.model.revision,
            "device": self.model.device.type,
            "data": content_sha256(prepared.usable),
            "most": most,
            "block_length": self.settings.block_length,
        }
        stage = Stage(self.cache_root, "micro_batch", inputs)
        if not stage.complete:
            rows, samples = self.settings.block_length, prepared.usable
            twice = self.ranks is not None and self.ranks.count > 1
            planned = planned_micro_batch(
                self.model, samples, cache, rows, most, gauge, twice=twice
            )
            stage.write_json("planned.json", planned)
            stage.finish()
        planned = int(stage.read_json("planned.json"))
        self.context.message("info", f"{planned} samples at once fit into the memory")
        self.settings = replace(self.settings, micro_batch=planned)

    def _most_at_once(self) -> int:
        processes = 1 if self.ranks is None else self.ranks.count
        return min(self.settings.micro_batch, math.ceil(self.settings.batch_size / processes))

    def run(self, cache: FeatureCache, prepared: Prepared) -> Outcome:
        """Compromise, measure, purify, repair and measure again, as far as that is asked for."""
        self.base = snapshot(self.model)
        self.base_sha256 = projector_sha256(self.model.projector)
        hashes = {"base_projector": self.base_sha256}
        generation = self.generation(prepared)
        tuned = self.compromise(cache, prepared)
        hashes["compromised_projector"] = projector_sha256(self.model.projector)
        self.share(cache, prepared, generation, tuned)
        before = self.evaluate("evaluate_before", cache, generation)
        decide = self.purify if "purify" in self.asked else self.examine
        purified = decide(cache, prepared, generation)
        self._tell_quarantined(purified.failed)
        probed = probe(purified.findings, self.training, self.sets.clean)
        recovered = self.recovered("detect", probed, cache, generation)
        after = measure(None, None, None)
        if "retrain" in self.asked:
            if self.settings.start == "base":
                restore(self.model, self.base)
            self.repair(purified, cache)
            hashes["purified_projector"] = projector_sha256(self.model.projector)
            after = self.evaluate_after(cache, generation)
            recovered |= self.recovered("evaluate_after", probed, cache, generation)
        return Outcome(
            before=before,
            after=after,
            rewritten=purified.rewritten,
            passed_through=prepared.without_images,
            quarantined=prepared.failed | purified.failed,
            generation=generation,
            saliency=purified.saliency,
            hashes=hashes,
            kept=[s for s in purified.samples if s.id not in purified.rewritten],
            removed=purified.removed,
            findings=purified.findings,
            recovered=recovered or None,
            shortcuts=self.gate.found,
        )

    def share(
        self, cache: FeatureCache, prepared: Prepared, generation: Generation, tuned: Stage
    ) -> None:
        """Offer parts of what follows to other workers; few defences are worth it."""

    def assist(self, cache: FeatureCache, prepared: Prepared) -> None:
        """Do parts of another run's work, where the defence shares any."""
        raise InvalidRequestError(f"method: {type(self).__name__} has no parts to share.")

    def generation(self, prepared: Prepared) -> Generation:
        """How responses are denoised, by the length of the data's own."""
        answers = [turn.text for sample in prepared.usable for turn in sample.turns[1::2]]
        lengths = [len(self.model.tokenise_response(answer)) + 1 for answer in answers]
        return self.settings.generation(lengths)

    def compromise(self, cache: FeatureCache, prepared: Prepared) -> Stage:
        """Tune the projector on the data as they came: M becomes M_back."""
        settings = self.settings.fine_tuning()
        return self.tune("fine_tune", prepared.usable, cache, settings, self.objective)

    def repair(self, purified: Purified, cache: FeatureCache) -> None:
        """Tune the projector on the purified samples."""
        if not purified.samples:
            raise InvalidDatasetError("nothing is left to train on.")
        self.tune("retrain", purified.samples, cache, self.settings.retraining())

    def tune(
        self,
        name: str,
        samples: Sequence[Sample],
        cache: FeatureCache,
        settings: FineTuning,
        objective: Objective | None = None,
    ) -> Stage:
        """Tune the projector, or read back that it was; return where it is kept."""
        inputs = tuning_inputs(self.model, content_sha256(samples), settings, self.seed)
        if objective is not None:
            inputs["objective"] = objective.to_json()
        with self.stage(name, inputs, kind="tune") as stage:
            given = (settings, self.seed, stage, self.context, objective, self.ranks)
            tune_projector(self.model, samples, cache, *given)
        return stage

    def evaluate(self, name: str, cache: FeatureCache, generation: Generation) -> dict[str, Any]:
        """Measure the model as it now is, if that is asked for."""
        if "evaluate" not in self.asked:
            return measure(None, None, None)
        with self.stage(name, self._evaluated(generation), kind="evaluate") as stage:
            return self.evaluator(cache, generation).run(self.sets, stage)

    def evaluate_after(self, cache: FeatureCache, generation: Generation) -> dict[str, Any]:
        """Measure what the defence leaves."""
        return self.evaluate("evaluate_after", cache, generation)

    def recovered(
        self, name: str, probed: Probe | None, cache: FeatureCache, generation: Generation
    ) -> dict[str, Any]:
        """What the recovered trigger does to the model as it now is, by the stage's name.

        Empty where no trigger was recovered, or rates are not asked for. What is shown without it
        is mostly the clean set, which the evaluation has asked about already.
        """
        if probed is None or "evaluate" not in self.asked:
            return {}
        digests = {part: data.sha256 for part, data in probed.runs.items()}
        inputs = self.inputs(runs=digests, generation=asdict(generation))
        evaluator, answers = self.evaluator(cache, generation), {}
        with self.stage(name, inputs, kind="recovered") as stage:
            for part, data in probed.runs.items():
                kept = (stage, digests[part])
                if data is self.sets.clean:
                    kept = (
                        Stage(self.cache_root, "evaluate", self._evaluated(generation)),
                        "clean",
                    )
                answers[part] = evaluator.answers(data, *kept)
            stage.finish()
        return {"before" if name == "detect" else "after": probed.measure(answers, self.seed)}

    def _evaluated(self, generation: Generation) -> dict[str, Any]:
        """What the evaluation of the model as it now is is kept under."""
        return self.inputs(sets=self.sets.sha256, generation=asdict(generation))

    def evaluator(self, cache: FeatureCache, generation: Generation) -> Evaluator:
        """What lets the model as it now is answer held-out items."""
        at_once = self.settings.micro_batch
        return Evaluator(self.model, cache, generation, at_once, self.context, self.gate)

    @cached_property
    def gate(self) -> Gate:
        """What lets shortcuts of the generation pass."""
        return Gate(self.seed, self.context, self.settings.micro_batch)

    @contextmanager
    def stage(self, name: str, inputs: Mapping[str, Any], kind: str = "") -> Iterator[Stage]:
        """A stage of the run, called `name` to its context and kept as `kind`."""
        with self.timed(name, Stage(self.cache_root, kind or name, inputs)) as stage:
            yield stage

    @contextmanager
    def timed(self, name: str, stage: Stage) -> Iterator[Stage]:
        """Tell the context when the stage begins and when it is done."""
        reused, started = stage.complete, time.monotonic()
        self.context.stage(name)
        self.gate.stage = name
        yield stage
        self.context.stage_done(name, time.monotonic() - started, reused)

    def inputs(self, **others: Any) -> dict[str, Any]:
        """The model as it now is, the micro-batch (kept files are cut by it), and `others`."""
        return {
            "model": self.model.revision,
            "device": self.model.device.type,
            "projector": projector_sha256(self.model.projector),
            "micro_batch": self.settings.micro_batch,
            **others,
        }

    def _tell_quarantined(self, failed: Mapping[str, str]) -> None:
        if failed:
            name, reason = next(iter(failed.items()))
            self.context.message(
                "warn", f"{len(failed)} of the samples fell out; the first is {name}: {reason}"
            )
