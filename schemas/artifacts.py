"""The manifest of a finished job: the one object whose creation publishes all the others."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.wire import Resource

ArtifactName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""A plain file name: who downloads it may put it into any folder."""


class ArtifactEntry(Resource):
    """One artifact; `key` is where the artifact store holds it."""

    name: ArtifactName
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    media_type: str
    key: str


class Manifest(Resource):
    """Every artifact of the attempt that won."""

    object: Literal["defense.job.manifest"] = "defense.job.manifest"
    job_id: str
    attempt: int = Field(ge=1)
    artifacts: list[ArtifactEntry]
