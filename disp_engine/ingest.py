"""Reads and judges a run's archives; no torch here, so that bad data are refused in a second."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from disp_engine import registry
from disp_engine.context import RunContext, check
from disp_engine.data.dataset import Dataset, read_dataset
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

    def read(path: Path) -> Dataset:
        return read_dataset(path, spec.work_dir / "pool", spec.validation, tell)

    def tell(done: int, unit: str) -> None:
        """Of how many, nobody knows before the end."""
        context.progress(done, done, unit)
        check(context)

    with _named("training_file"):
        training = read(spec.training_file)
    with _named("triggered_file"):
        triggered = read(spec.triggered_file) if spec.triggered_file else None
    with _named("clean_file"):
        clean = read(spec.clean_file) if spec.clean_file else None
    return Ingested(began, training, triggered, clean)


@contextmanager
def _named(param: str) -> Iterator[None]:
    """Say which of the run's files a dataset error is about."""
    try:
        yield
    except InvalidDatasetError as error:
        error.param = param
        raise
