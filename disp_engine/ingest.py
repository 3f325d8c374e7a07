"""Reads and judges a run's archives; no torch here, so that bad data are refused in a second."""

import time
from dataclasses import dataclass
from pathlib import Path

from disp_engine import registry
from disp_engine.context import RunContext, check
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.data.validation import Validation
from disp_engine.errors import InvalidDatasetError
from disp_engine.spec import RunSpec


@dataclass(frozen=True)
class Ingested:
    """The datasets of one run; `began` is the time, on the monotonic clock, when that began."""

    began: float
    training: Dataset
    triggered: Dataset | None
    clean: Dataset | None


def ingest(spec: RunSpec, context: RunContext) -> Ingested:
    """Read all data that the spec names; the pictures go to the work folder's pool."""
    began = time.monotonic()
    registry.judge_configs(spec.model_dir)

    def read(param: str, path: Path) -> Dataset:
        return read_judged(param, path, spec.work_dir / "pool", spec.validation, context)

    training = read("training_file", spec.training_file)
    triggered = read("triggered_file", spec.triggered_file) if spec.triggered_file else None
    clean = read("clean_file", spec.clean_file) if spec.clean_file else None
    return Ingested(began, training, triggered, clean)


def read_judged(
    param: str, path: Path, pool: Path, validation: Validation, context: RunContext
) -> Dataset:
    """Read one archive and tell what was found in it, also when it is refused."""

    def tell(done: int, unit: str) -> None:
        """Of how many, nobody knows before the end."""
        context.progress(done, done, unit)
        check(context)

    try:
        dataset = read_dataset(path, pool, validation, tell)
    except InvalidDatasetError as error:
        error.param = param
        context.validated(param, error.judgement, error)
        raise
    context.validated(param, dataset.judgement, None)
    return dataset
