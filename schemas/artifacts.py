"""The manifest of a finished job: the one object whose creation publishes all the others."""

from typing import Literal

from pydantic import Field

from schemas.wire import Resource


class ArtifactEntry(Resource):
    """One artifact; `key` is where the artifact store holds it."""

    name: str
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
