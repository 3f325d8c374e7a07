"""A model the service knows; clients name it by id and never by path."""

from typing import Any, Literal

from pydantic import Field

from schemas.wire import Resource

ModelKind = Literal["diffusion", "autoregressive"]
"""How a model makes its answers; some methods want one kind (`schemas.requests.METHOD_KINDS`)."""


class Model(Resource):
    """A registered checkpoint: family, kind, revision and the card's defaults.

    The revision is the sha256 of the checkpoint's card or of its files.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "disp"
    family: str
    kind: ModelKind
    revision: str
    defaults: dict[str, Any] = Field(default_factory=dict)
