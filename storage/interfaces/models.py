"""The models that jobs may name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.models import Model, ModelKind


@dataclass(frozen=True)
class ModelRecord:
    """A registered model; `path` is a local folder and is never shown to clients."""

    id: str
    family: str
    revision: str
    path: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    kind: ModelKind = "diffusion"


class ModelStore(Protocol):
    """The allow-list of models, the same for every tenant."""

    def register_model(self, model: ModelRecord) -> None:
        """Add a model, or replace the one with the same id."""
        ...

    def get_model(self, model_id: str) -> Model:
        """Return a model or raise `NotFound`."""
        ...

    def list_models(self) -> Sequence[Model]:
        """Return all models by id."""
        ...

    def list_model_records(self) -> Sequence[ModelRecord]:
        """Return all models by id, with the folders that workers read."""
        ...
