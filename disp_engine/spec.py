"""What a run is asked to do, as JSON on disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from disp_engine.data.validation import Validation
from disp_engine.errors import InvalidRequestError


@dataclass(frozen=True)
class RunSpec:
    """One run: a model folder, archives, settings, and where to work and to put the results.

    `work_dir` keeps finished stages and may be shared by many runs; `out_dir` is filled when
    the run succeeds; `threads` None leaves torch's own choice; `processes` tune the
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
    triggered_file: Path | None = None
    clean_file: Path | None = None
    success: Mapping[str, Any] | None = None
    validation: Validation = "quarantine"
    method: Mapping[str, Any] = field(default_factory=lambda: {"type": "disp"})
    defaults: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Sequence[Literal["merged_checkpoint"]] = ()
    seed: int = 0
    threads: int | None = None
    processes: int | None = None
    role: Literal["alone", "leads", "assists"] = "alone"

    @classmethod
    def from_file(cls, path: Path) -> "RunSpec":
        """Read a spec, or say what is wrong with it."""
        try:
            raw = json.loads(path.read_bytes())
            paths = ("model_dir", "training_file", "work_dir", "out_dir", "triggered_file",
                     "clean_file")  # fmt: skip
            return cls(**raw | {key: Path(raw[key]) for key in paths if raw.get(key)})
        except (OSError, ValueError, TypeError) as error:
            raise InvalidRequestError(f"{path.name}: not a run spec: {error}.") from error
