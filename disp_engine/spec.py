"""What a run is asked to do, as JSON on disk."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from disp_engine.data.validation import Validation
from disp_engine.errors import InvalidRequestError

AskedStage = Literal["detect", "purify", "retrain", "evaluate"]
"""A part of the pipeline: the verdict, the purified dataset, the projector, the rates."""
ALL_STAGES: frozenset[AskedStage] = frozenset({"detect", "purify", "retrain", "evaluate"})


@dataclass(frozen=True)
class RunSpec:
    """One run: a model folder, archives, settings, and where to work and to put the results.

    `checkpoint_file` is a projector in safetensors that stands in place of the model folder's own.
    `stages` are the parts of the pipeline that are asked for, beside the first tuning. `work_dir`
    keeps finished stages and may be shared by many runs; `out_dir` is filled when the run
    succeeds; `threads` None leaves torch's own choice; `processes` tune the
    projector together, None means one for each visible GPU; `model_options` are settings of
    the model family's own (docs/models.md). `validation` tells what a fault in the data costs
    (data/validation.py). `artifacts` are left beside those of every run. A run that `leads` lets
    others help it; one that `assists` does parts of such a run and leaves nothing in `out_dir`.
    """

    model_dir: Path
    model_id: str
    training_file: Path
    work_dir: Path
    out_dir: Path
    checkpoint_file: Path | None = None
    triggered_file: Path | None = None
    clean_file: Path | None = None
    success: Mapping[str, Any] | None = None
    validation: Validation = "quarantine"
    method: Mapping[str, Any] = field(default_factory=lambda: {"type": "disp"})
    defaults: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Sequence[Literal["merged_checkpoint"]] = ()
    stages: Collection[AskedStage] = ALL_STAGES
    seed: int = 0
    threads: int | None = None
    processes: int | None = None
    role: Literal["alone", "leads", "assists"] = "alone"

    def __post_init__(self) -> None:
        """Refuse stages that do not exist, or lack another one."""
        asked = set(self.stages)
        if not asked or asked - ALL_STAGES:
            known = ", ".join(sorted(ALL_STAGES))
            raise InvalidRequestError(f"stages: one or several of {known} are expected.")
        if "retrain" in asked and "purify" not in asked:
            raise InvalidRequestError("stages: retrain needs purify.")
        if self.artifacts and "retrain" not in asked:
            raise InvalidRequestError("artifacts: merged_checkpoint needs the stage retrain.")

    @classmethod
    def from_file(cls, path: Path) -> "RunSpec":
        """Read a spec, or say what is wrong with it."""
        try:
            raw = json.loads(path.read_bytes())
            paths = ("model_dir", "training_file", "work_dir", "out_dir", "checkpoint_file",
                     "triggered_file", "clean_file")  # fmt: skip
            return cls(**raw | {key: Path(raw[key]) for key in paths if raw.get(key)})
        except (OSError, ValueError, TypeError) as error:
            raise InvalidRequestError(f"{path.name}: not a run spec: {error}.") from error
