"""Measures cells on one model and one source of data; finished cells are kept."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from disp_engine import registry
from disp_engine.attacks.poison import for_world
from disp_engine.attacks.sets import AttackSets, of_dataset, of_world
from disp_engine.attacks.settings import AttackSettings
from disp_engine.bench.cells import DEFENCES, ORACLES, Cell, Size
from disp_engine.bench.detection import detection_quality, location_iou
from disp_engine.bench.extras import by_kind, by_modality, caption_quality
from disp_engine.bench.objectives import objective_of
from disp_engine.bench.verdicts import bare_verdict
from disp_engine.context import RunContext
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.defences.defence import Defence, Outcome
from disp_engine.defences.undefended import Undefended
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import DiffusionModel
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.filtering import filter_quality
from disp_engine.metrics.masked import MaskedEvaluator
from disp_engine.metrics.success import ContainsAny
from disp_engine.saliency.estimator import SaliencySettings
from disp_engine.spec import ALL_STAGES
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache
from disp_engine.training.projector import restore, snapshot

RATES = ("asr_with_trigger", "asr_without_trigger", "clean_performance", "robust_performance",
         "token_agreement")  # fmt: skip


@dataclass
class Workbench:
    """A model, its data and where work is kept.

    `data` None draws the built-in world for each attack; a LLaVA archive or folder is poisoned
    instead, `size.test` of its samples held out.
    """

    model_dir: Path
    root: Path
    size: Size
    seed: int
    context: RunContext
    data: Path | None = None

    def row(self, cell: Cell) -> dict[str, Any]:
        """The cell's row, measured now or kept from an earlier run.

        `seconds` is the time that the cell took when it was measured; stages that an earlier cell
        had finished (mostly the first tuning) are not in it.
        """
        stage = Stage(self.root, "cell", self._inputs(cell))
        if not stage.complete:
            started = time.monotonic()
            found = self._measured(cell)
            found["seconds"] = round(time.monotonic() - started, 3)
            stage.write_json("row.json", found)
            stage.finish()
        return dict(stage.read_json("row.json"))

    @cached_property
    def _model(self) -> DiffusionModel:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return registry.load_model(self.model_dir, device=device)

    @cached_property
    def _base(self) -> Mapping[str, torch.Tensor]:
        return snapshot(self._model)

    @cached_property
    def _dataset(self) -> Dataset | None:
        return read_dataset(self.data, self.root / "pool") if self.data else None

    def _inputs(self, cell: Cell) -> dict[str, Any]:
        """All that determines a row; the table's name only says where it stands."""
        same = {key: value for key, value in cell.to_json().items() if key != "table"}
        return {
            "cell": same,
            "attack": repr(self._attack(cell).build()),
            "model": self._model.revision,
            "data": self._dataset.sha256 if self._dataset else "world",
            "size": [self.size.samples, self.size.test, dict(self.size.hyperparameters)],
            "card": registry.card_defaults(self.model_dir),
            "seed": self.seed,
        }

    def _measured(self, cell: Cell) -> dict[str, Any]:
        base = self._base
        restore(self._model, base)
        attack = self._attack(cell)
        sets = self._sets(attack, cell.draw)
        defence = self._defence(cell, attack, sets)
        if cell.measure == "verdict":
            return {"detection": detection_quality(bare_verdict(defence), sets.poisoned, None)}
        cache, prepared = defence.prepare()
        outcome = defence.run(cache, prepared)
        row = self._rates(cell, defence, cache, outcome, sets)
        if cell.measure == "modality":
            row["modality"] = by_modality(defence, cache, outcome.generation, attack, sets)
        if cell.measure == "detection" and outcome.findings is not None:
            row["detection"] = detection_quality(
                outcome.findings, sets.poisoned, outcome.recovered
            ) | {
                "asr": row["before"]["asr_with_trigger"],
                "iou": location_iou(self._model, cache, outcome.findings, attack.build().picture),
            }
        if cell.measure == "kinds":
            row["kinds"] = by_kind(defence, cache, outcome.generation, self._pool, self.size.test)
        return row

    def _attack(self, cell: Cell) -> AttackSettings:
        return cell.attack if self._dataset else for_world(cell.attack)

    @property
    def _pool(self) -> Path:
        return self.root / "pool"

    def _sets(self, attack: AttackSettings, draw: int = 0) -> AttackSets:
        built, seed = attack.build(), self.seed + 1000 * draw
        if self._dataset is not None:
            return of_dataset(self._dataset, built, test=self.size.test, seed=seed)
        size = self.size
        return of_world(built, samples=size.samples, test=size.test, seed=seed, pool=self._pool)

    def _defence(self, cell: Cell, attack: AttackSettings, sets: AttackSets) -> Defence[Any]:
        training = sets.untouched if cell.defence == "clean" else sets.training
        success = ContainsAny(attack.build().target.phrases)
        evaluation = EvaluationSets(sets.triggered, sets.clean, success)
        kind: type[Defence[Any]] = Undefended
        given: dict[str, Any] = {"start": cell.start}
        if cell.defence not in ("clean", "none"):
            if cell.defence not in DEFENCES:
                raise InvalidRequestError(f"defence {cell.defence!r} is unknown.")
            name, options = DEFENCES[cell.defence]
            kind, given = registry.defence(name), given | dict(options)
        if cell.defence in ORACLES:
            given["poisoned_ids"] = sorted(sets.poisoned)
        settings = kind.settings_type.resolve(
            registry.card_defaults(self.model_dir), self.size.hyperparameters, given
        )
        return kind(
            self._model, training, evaluation, settings, self.seed, self.root, self.context,
            objective_of(cell.objective, sets.poisoned, self._base),
            asked=ALL_STAGES if cell.measure == "detection" else ALL_STAGES - {"detect"},
        )  # fmt: skip

    def _rates(
        self,
        cell: Cell,
        defence: Defence[Any],
        cache: FeatureCache,
        outcome: Outcome,
        sets: AttackSets,
    ) -> dict[str, Any]:
        after = outcome.after
        if cell.mask_ratio is not None:
            after = self._under_mask(cell.mask_ratio, defence, cache, outcome)
        row: dict[str, Any] = {name: after[name] for name in RATES}
        row["before"] = {name: outcome.before[name] for name in RATES}
        masked = cell.mask_ratio is not None
        row["cider"] = None if masked else caption_quality(defence, cache, outcome.generation)
        if outcome.removed:
            row["filter"] = filter_quality(outcome.removed, sets.poisoned).to_json()
        return row

    def _under_mask(
        self, ratio: float, defence: Defence[Any], cache: FeatureCache, outcome: Outcome
    ) -> dict[str, Any]:
        """The compromised model's rates with pictures masked at inference."""
        generation = outcome.generation
        rows = min(generation.block_length, generation.length)
        saliency = SaliencySettings(rows=rows, length=generation.length, seed=self.seed)
        evaluator = MaskedEvaluator(
            self._model, cache, generation, defence.settings.micro_batch, self.context,
            mask_ratio=ratio, saliency=saliency,
        )  # fmt: skip
        inputs = defence.inputs(
            sets=defence.sets.sha256, generation=asdict(generation), ratio=ratio,
            saliency=vars(saliency),
        )  # fmt: skip
        with defence.stage("evaluate_after", inputs, kind="masked") as stage:
            return evaluator.run(defence.sets, stage)


def smaller(size: Size, **changes: Any) -> Size:
    """A size with other numbers where they are given."""
    return replace(size, **{name: value for name, value in changes.items() if value is not None})
