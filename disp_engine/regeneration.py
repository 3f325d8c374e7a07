"""DiSP's idea for autoregressive models: data purified by the compromised model's guarded answers.

As in Algorithm 1 of Wan et al. (arXiv 2602.22246) the projector is tuned on the suspect data, the
model so compromised rewrites every response, and the projector is tuned on what it wrote. What
hides the trigger meanwhile is a guard in place of the saliency mask; that is ours.

What defeats it: what defeats the guard; triggers in the text.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from disp_engine import registry
from disp_engine.context import RunContext, check
from disp_engine.data.dataset import IMAGE_MARK, Dataset, content_sha256
from disp_engine.data.writer import purified_record, write_dataset
from disp_engine.defences.rewriting import Draft, Rewritten
from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidDatasetError, SampleError
from disp_engine.guards.guard import Guard, Guarded, Question
from disp_engine.interfaces import AutoregressiveModel
from disp_engine.records import Sample, Turn
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, prepare
from disp_engine.training.projector import (
    projector_sha256,
    restore,
    snapshot,
    tune_projector,
    tuning_inputs,
)
from disp_engine.training.settings import FineTuning


@dataclass(frozen=True)
class Regenerated:
    """What a run leaves: new responses by sample, and who fell out and why."""

    rewritten: dict[str, Rewritten]
    quarantined: dict[str, str]
    passed_through: list[str]

    def to_json(self) -> dict[str, Any]:
        """Counts and reasons."""
        return {
            "rewritten": len(self.rewritten),
            "passed_through": len(self.passed_through),
            "quarantined": self.quarantined,
        }


@dataclass
class Regeneration:
    """One run; tuned projectors and responses are kept below `root`.

    `guard` and `options` name what guards the rewriting; answers take `length` tokens at most.
    """

    model: AutoregressiveModel
    training: Dataset
    guard: str
    options: dict[str, Any]
    settings: DefenceSettings
    length: int
    seed: int
    root: Path
    context: RunContext

    def run(self, out: Path) -> Regenerated:
        """Compromise, rewrite, repair; write the purified dataset and the projector below `out`."""
        cache = FeatureCache(self.model, self.root, self.context)
        prepared = prepare(self.training, self.model, cache)
        base = snapshot(self.model)
        self._tune("compromise", prepared.usable, cache, self.settings.fine_tuning())
        rewritten = self._rewrite(prepared.usable)
        purified = [
            sample.with_responses(responses)
            for sample in prepared.usable
            if (responses := rewritten[sample.id].responses) is not None
        ]
        if not purified:
            raise InvalidDatasetError("nothing is left to train on.")
        if self.settings.start == "base":
            restore(self.model, base)
        self._tune("repair", purified, cache, self.settings.retraining())
        failed = {one.id: one.failure for one in rewritten.values() if one.failure}
        done = Regenerated(
            {sample.id: rewritten[sample.id] for sample in purified},
            prepared.failed | failed,
            [sample.id for sample in prepared.without_images],
        )
        self._write(done, out)
        return done

    def _tune(
        self, name: str, samples: Sequence[Sample], cache: FeatureCache, settings: FineTuning
    ) -> None:
        self.context.stage(name)
        inputs = tuning_inputs(self.model, content_sha256(samples), settings, self.seed)
        stage = Stage(self.root, "guard-tune", inputs)
        tune_projector(self.model, samples, cache, settings, self.seed, stage, self.context)

    def _rewrite(self, samples: Sequence[Sample]) -> dict[str, Rewritten]:
        """Let the compromised model answer under guard, micro-batch by micro-batch."""
        self.context.stage("rewrite")
        inputs = {
            "model": self.model.revision,
            "projector": projector_sha256(self.model.projector),
            "data": content_sha256(samples),
            "guard": [self.guard, self.options, self.length, self.settings.micro_batch],
        }
        stage = Stage(self.root, "guard-rewrite", inputs)
        guard = registry.guard(self.guard, self.model, self.options)
        found: dict[str, Rewritten] = {}
        for start in range(0, len(samples), self.settings.micro_batch):
            file, batch = f"{start:07d}.json", samples[start : start + self.settings.micro_batch]
            if not stage.has(file):
                stage.write_json(file, [asdict(one) for one in self._rewrite_batch(guard, batch)])
                check(self.context)
            found |= {one["id"]: Rewritten(**one) for one in stage.read_json(file)}
            self.context.progress(len(found), len(samples), "samples")
        stage.finish()
        return found

    def _rewrite_batch(self, guard: Guard, batch: Sequence[Sample]) -> list[Rewritten]:
        """Rewrite turn after turn; later questions follow the answers that were rewritten."""
        drafts = [Draft(sample) for sample in batch]
        for turn in range(max(len(sample.turns) // 2 for sample in batch)):
            asked = [draft for draft in drafts if draft.wants(turn)]
            questions = [self._question(draft) for draft in asked]
            for draft, guarded in zip(asked, self._answers(guard, questions), strict=True):
                if isinstance(guarded, str):
                    draft.failure = guarded
                    continue
                draft.masked.append(len(guarded.verdict.removed))
                draft.take(guarded.text.strip())
        return [draft.result() for draft in drafts]

    def _question(self, draft: Draft) -> Question:
        turns: list[Turn] = []
        for question, response in zip(draft.sample.turns[::2], draft.responses, strict=False):
            turns += [question, Turn("gpt", response)]
        turns.append(draft.sample.turns[2 * len(draft.responses)])
        shown = sum(turn.text.count(IMAGE_MARK) for turn in turns if turn.role == "human")
        images = [self.training.image(name) for name in draft.sample.images[:shown]]
        return Question(tuple(turns), tuple(images))

    def _answers(self, guard: Guard, questions: Sequence[Question]) -> list[Guarded | str]:
        """Guarded answers, or why there is none; a bad question does not spoil the others."""
        try:
            return list(guard.answer(questions, self.length)) if questions else []
        except SampleError as error:
            if len(questions) == 1:
                return [str(error)]
            return [answer for one in questions for answer in self._answers(guard, [one])]

    def _write(self, done: Regenerated, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        passed = set(done.passed_through)
        kept = [s for s in self.training.samples if s.id in done.rewritten or s.id in passed]
        records = [
            purified_record(sample, done.rewritten[sample.id].responses or [])
            if sample.id in done.rewritten
            else dict(sample.record)
            for sample in kept
        ]
        used = {image for sample in kept for image in sample.images}
        write_dataset(self.training, records, used, out)
        self.model.save_projector(out / "mm_projector.safetensors")
