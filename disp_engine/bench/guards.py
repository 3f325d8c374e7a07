"""Tables of the papers on test-time defences: a tuned autoregressive model, bare and guarded.

One setting serves all rows of a table: the model is tuned once for each attack, CleanSight and
STRIP see the same clean questions, and every guard is measured against the bare model in its run.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Literal

import torch

from disp_engine import registry
from disp_engine.attacks.poison import for_world
from disp_engine.attacks.sets import AttackSets, of_world
from disp_engine.attacks.settings import AttackSettings
from disp_engine.bench.cells import Size
from disp_engine.bench.objectives import OBJECTIVES, Name, objective_of
from disp_engine.bench.rows import share
from disp_engine.context import RunContext
from disp_engine.data.writer import write_archive
from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidModelError
from disp_engine.guards.cleansight import CalibrationSettings, calibrate
from disp_engine.guards.guard import Guard
from disp_engine.interfaces import AdaptableModel, AutoregressiveModel
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.guarding import GuardEvaluator, question_of
from disp_engine.metrics.success import ContainsAny
from disp_engine.metrics.utility import (
    defence_effectiveness,
    relative_clean_performance,
    robust_improvement,
)
from disp_engine.models.inspection import promised_sha256
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, prepare
from disp_engine.training.lora import Adapted, LoraSettings, adapted
from disp_engine.training.projector import (
    restore,
    snapshot,
    tune_projector,
    tuning_inputs,
)

Options = Mapping[str, Any]
"""What a guard is told, by the names of its settings."""

PATCH = AttackSettings("black_patch_centre", "targeted_refusal", 0.1)
"""PurMM's attack: a black square in the centre of a tenth of the pictures, and a refusal."""
BADNET = replace(PATCH, rate=0.5)
"""CleanSight's companion code poisons half of its samples. In the centre, for a patch in the corner
draws no attention here: `cleansight1` shows that, too."""
PURMM_BASELINES = (
    "undefended", "random_tokens", "sparse_vlm", "diff_pure", "zip", "samp_detox",
)  # fmt: skip
CLEANSIGHT_BASELINES = ("undefended", "blur", "flip", "shrink_pad", "strip", "bdmae", "zip")
PAINTERS: Mapping[str, tuple[str, str]] = {
    "diff_pure": ("ddpm", "disp-tiny-ddpm"),
    "zip": ("ddpm", "disp-tiny-ddpm"),
    "samp_detox": ("ddpm", "disp-tiny-ddpm"),
    "bdmae": ("mae", "disp-tiny-mae"),
}
"""Guards that need a network of pictures: their option, and the folder beside the model."""
DENOISING: Mapping[str, Options] = {"diff_pure": {"steps": 30}, "samp_detox": {"steps": 24}}
"""Every fifth of the steps that the authors go through: all take seconds a question here."""
CALIBRATION_QUESTIONS = 200
AUTHORS_PURMM: Options = {"rows": "answer"}
"""The authors' code; the paper's rows are `all_causal`."""
AUTHORS_CLEANSIGHT: Options = {"first_layer": 1, "last_layer": 3, "tau": 0.18}
"""The authors' layers 10 to 24 of 32 and tau 0.02 at 576 tokens, for four layers and 64 tokens."""
LENGTH = 32


@dataclass(frozen=True)
class GuardCell:
    """One row: an attack, and a guard with its options against the model that was tuned on it.

    `trained` is what the tuning changes: the projector, or what LoRA does too. `objective` is the
    loss of an attacker who controls the tuning.
    """

    table: str
    attack: AttackSettings
    defence: str
    options: Options = field(default_factory=dict)
    start: str = "compromised"
    objective: Name | None = None
    trained: Literal["projector", "lora"] = "projector"

    @property
    def label(self) -> str:
        """The guard with those options that vary in a table; `none`, as in all tables, for none."""
        if self.defence == "undefended":
            return "none"
        told = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.defence}({told})" if told else self.defence


Table = Callable[[], Iterable[GuardCell]]


def _by_lora(table: Table) -> Table:
    """The same rows with victims that are tuned by LoRA, as PurMM's authors tune all of theirs."""

    @wraps(table)
    def cells() -> Iterable[GuardCell]:
        return (replace(cell, trained="lora") for cell in table())

    return cells


@_by_lora
def purmm1() -> Iterable[GuardCell]:
    """Table 1: PurMM and its baselines."""
    for guard in (*PURMM_BASELINES, "purmm"):
        yield GuardCell("purmm1", PATCH, guard)
    yield GuardCell("purmm1", PATCH, "purmm", AUTHORS_PURMM)


@_by_lora
def purmm2() -> Iterable[GuardCell]:
    """Table 2: the clusterings."""
    for clustering in ("kmeans", "dbscan", "gmm"):
        yield GuardCell("purmm2", PATCH, "purmm", {"clustering": clustering})


@_by_lora
def purmm3() -> Iterable[GuardCell]:
    """Table 3: recovery, with and without the filter."""
    for guard in PURMM_BASELINES:
        yield GuardCell("purmm3", PATCH, guard)
    yield GuardCell("purmm3", PATCH, "purmm", {"reference": "none"})
    yield GuardCell("purmm3", PATCH, "purmm")


@_by_lora
def purmm4() -> Iterable[GuardCell]:
    """Table 4: poisoning rates."""
    for rate in (0.05, 0.1, 0.15):
        yield from _pair("purmm4", replace(PATCH, rate=rate), "purmm")


@_by_lora
def purmm5() -> Iterable[GuardCell]:
    """Table 5: types of triggers."""
    for trigger in ("black_patch_centre", "pixelated_patch", "logo"):
        yield from _pair("purmm5", replace(PATCH, trigger=trigger), "purmm")


@_by_lora
def purmm6() -> Iterable[GuardCell]:
    """Table 6: triggers that disperse attention."""
    for trigger in ("black_patch_centre", "fixed_dual", "random_triple"):
        yield from _pair("purmm6", replace(PATCH, trigger=trigger), "purmm")


@_by_lora
def purmm9() -> Iterable[GuardCell]:
    """Table 9: time of one question, all guards."""
    for guard in registry.GUARDS:
        yield GuardCell("purmm9", PATCH, guard)


def cleansight1() -> Iterable[GuardCell]:
    """CleanSight's main table: its triggers, and two losses of who controls the tuning."""
    for trigger in (BADNET.trigger, "black_patch", "blended", "issba", "wanet"):
        yield from _pair("cleansight1", replace(BADNET, trigger=trigger), "cleansight")
    yield GuardCell("cleansight1", BADNET, "cleansight", AUTHORS_CLEANSIGHT)
    inserted = replace(BADNET, target="random_insertion")
    for objective in OBJECTIVES:
        for guard in ("undefended", "cleansight"):
            yield GuardCell("cleansight1", inserted, guard, objective=objective)


def cleansight2() -> Iterable[GuardCell]:
    """CleanSight against guards of pictures."""
    for trigger in (BADNET.trigger, "blended", "wanet"):
        for guard in (*CLEANSIGHT_BASELINES, "cleansight"):
            yield GuardCell("cleansight2", replace(BADNET, trigger=trigger), guard)


GUARD_TABLES: Mapping[str, Table] = {
    "purmm1": purmm1,
    "purmm2": purmm2,
    "purmm3": purmm3,
    "purmm4": purmm4,
    "purmm5": purmm5,
    "purmm6": purmm6,
    "purmm9": purmm9,
    "cleansight1": cleansight1,
    "cleansight2": cleansight2,
}


def painter_of(guard: str, model_dir: Path) -> Path | None:
    """The network that a guard needs: it lies beside the model, as the recipe leaves it."""
    return model_dir.parent / PAINTERS[guard][1] if guard in PAINTERS else None


def _pair(table: str, attack: AttackSettings, guard: str) -> Iterable[GuardCell]:
    yield GuardCell(table, attack, "undefended")
    yield GuardCell(table, attack, guard)


@dataclass
class GuardBench:
    """Measures cells on one model and the built-in world; finished cells are kept."""

    model_dir: Path
    root: Path
    size: Size
    seed: int
    context: RunContext

    def row(self, cell: GuardCell) -> dict[str, Any]:
        """The cell's row, measured now or kept from an earlier run."""
        stage = Stage(self.root, "guard-cell", self._inputs(cell))
        if not stage.complete:
            stage.write_json("row.json", self._measured(cell))
            stage.finish()
        return dict(stage.read_json("row.json")) | {"table": cell.table}

    @cached_property
    def _model(self) -> AutoregressiveModel:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return registry.load_autoregressive(self.model_dir, device=device)

    @cached_property
    def _base(self) -> Mapping[str, torch.Tensor]:
        return snapshot(self._model)

    def _inputs(self, cell: GuardCell) -> dict[str, Any]:
        same = {key: value for key, value in asdict(cell).items() if key != "table"}
        painter = painter_of(cell.defence, self.model_dir)
        drawn = {} if painter is None else {
            "painter": promised_sha256(painter),
            "steps": DENOISING.get(cell.defence),
        }  # fmt: skip
        return drawn | {
            "cell": same,
            "model": self._model.revision,
            "size": [self.size.samples, self.size.test, dict(self.size.hyperparameters)],
            "card": registry.card_defaults(self.model_dir),
            "seed": self.seed,
        }

    def _measured(self, cell: GuardCell) -> dict[str, Any]:
        attack = for_world(cell.attack)
        built = attack.build()
        sets = of_world(
            built,
            samples=self.size.samples,
            test=self.size.test,
            seed=self.seed,
            pool=self.root / "pool",
        )
        with self._adapted(cell) as parameters:
            self._compromise(cell, sets, parameters)
            success = ContainsAny(built.target.phrases)
            found = self._guarded(cell, sets, success)
        told = {"model": self.model_dir.name, "seed": self.seed, "options": self._options(cell)}
        return told | _row(cell, found)

    def _adapted(self, cell: GuardCell) -> AbstractContextManager[Adapted | None]:
        """The model with adapters for as long as the cell lasts, where it is tuned by LoRA."""
        if cell.trained == "projector":
            return nullcontext()
        if not isinstance(self._model, AdaptableModel):
            raise InvalidModelError("model: it cannot be given adapters.")
        settings = LoraSettings.of_card(registry.card_defaults(self.model_dir))
        return adapted(self._model, settings, self.seed)

    @torch.no_grad()
    def _guarded(self, cell: GuardCell, sets: AttackSets, success: ContainsAny) -> dict[str, Any]:
        """The rates of the tuned model, bare and behind the cell's guard."""
        bare, guard = registry.guard("undefended", self._model), self._guard(cell, sets)
        evaluator = GuardEvaluator(bare, guard, LENGTH, 1, self.context)
        self.context.stage(f"guard {cell.label}")
        return evaluator.run(EvaluationSets(sets.triggered, sets.clean, success))

    def _compromise(self, cell: GuardCell, sets: AttackSets, parameters: Adapted | None) -> None:
        """Tune the model on the poisoned samples, or read back that it was."""
        restore(self._model, self._base)
        settings = DefenceSettings.resolve(
            registry.card_defaults(self.model_dir), self.size.hyperparameters
        ).fine_tuning()
        cache = FeatureCache(self._model, self.root, self.context)
        prepared = prepare(sets.training, self._model, cache)
        inputs = tuning_inputs(self._model, sets.training.sha256, settings, self.seed)
        objective = objective_of(cell.objective, sets.poisoned, self._base)
        if objective is not None:
            inputs["objective"] = objective.to_json()
        if parameters is not None:
            inputs["lora"] = asdict(parameters.settings)
        stage = Stage(self.root, "tune", inputs)
        self.context.stage("fine_tune")
        given = (settings, self.seed, stage, self.context, objective)
        tune_projector(self._model, prepared.usable, cache, *given, adapted=parameters)

    def _options(self, cell: GuardCell) -> dict[str, Any]:
        """What the cell's guard is told: by the model's card, then by the cell."""
        own = {**DENOISING.get(cell.defence, {}), **cell.options}
        if cell.defence == "cleansight":
            told = registry.card_defaults(self.model_dir) | own
            return asdict(CalibrationSettings.of_card(told))
        return registry.guard_defaults(self.model_dir, cell.defence, own) | own

    def _guard(self, cell: GuardCell, sets: AttackSets) -> Guard:
        """The cell's guard, with what it needs of clean questions."""
        options = self._options(cell)
        clean = sets.untouched
        clean = replace(clean, samples=clean.samples[:CALIBRATION_QUESTIONS])
        if cell.defence == "cleansight":
            questions = [question_of(sample, clean) for sample in clean.samples]
            path = self.root / "calibration.json"
            calibrate(self._model, questions, CalibrationSettings(**options)).save(path)
            options = {"calibration": str(path)}
        painter = painter_of(cell.defence, self.model_dir)
        if painter is not None:
            options[PAINTERS[cell.defence][0]] = str(painter)
        if cell.defence == "strip":
            options["clean"] = str(write_archive(self.root / "clean.zip", clean))
        return registry.guard(cell.defence, self._model, options)


def _row(cell: GuardCell, found: Mapping[str, Any]) -> dict[str, Any]:
    bare = found["undefended"]
    cp, asr, rp = (
        (share(bare[name]), share(found[name]))
        for name in ("clean_performance", "asr_with_trigger", "robust_performance")
    )
    detection = found["detection"]
    objective = {} if cell.objective is None else {"objective": cell.objective}
    return objective | {
        "trigger": cell.attack.label,
        "target": cell.attack.target,
        "poisoning_rate": cell.attack.rate,
        "defence": cell.label,
        "start": cell.start,
        "trained": cell.trained,
        "asr_with_trigger": found["asr_with_trigger"],
        "asr_without_trigger": found["asr_without_trigger"],
        "clean_performance": found["clean_performance"],
        "relative_clean_performance": relative_clean_performance(cp[1], cp[0]),
        "robust_performance": found["robust_performance"],
        "recovery_performance": found["robust_performance"],
        "trade_off": found["trade_off"],
        "defence_effectiveness": defence_effectiveness(asr, cp),
        "robust_improvement": robust_improvement(rp, cp),
        "auroc": detection["auroc"],
        "true_positive_rate": detection["true_positive_rate"],
        "false_positive_rate": detection["false_positive_rate"],
        "removed_tokens": found["removed_tokens"],
        "seconds": found["seconds_per_question"],
        "latency_ratio": found["latency_ratio"],
        "latency_ratio_of": found["latency_ratio_of"],
        "undefended": bare,
    }
