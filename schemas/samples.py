"""What became of one sample, as a job's `samples.jsonl` tells it, one line for each."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from schemas.wire import Resource


class SampleStatus(StrEnum):
    """What the purification did with a sample."""

    REWRITTEN = "rewritten"
    PASSED_THROUGH = "passed_through"
    KEPT = "kept"
    REMOVED = "removed"
    QUARANTINED = "quarantined"


class Verdict(StrEnum):
    """Whether the model, with the salient tokens hidden, still said what the sample says."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"


class Preview(Resource):
    """A small picture: `bytes` from `offset` on in the artifact `previews.bin`."""

    offset: int = Field(ge=0)
    bytes: int = Field(ge=0)
    type: Literal["image/png", "image/jpeg"]
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class SampleSaliency(Resource):
    """Where hiding the picture would change the answer most: a map over a sample's first picture.

    `values` are `rows` times `columns`, from the top left; the most salient cell has 1.
    """

    object: Literal["defense.job.sample.saliency"] = "defense.job.sample.saliency"
    job_id: str
    sample_id: str
    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    values: list[list[float]]


class Sample(Resource):
    """One training sample: `original` and `purified` hold its responses, turn by turn.

    `masked_tokens` are those hidden for each turn, of the `visual_tokens` of the last prompt.

    `score` is how suspicious it is, in deviations; `reasons` name the detectors that say so; `heat`
    is a map of the saliency over its first picture, rows of hexadecimal digits.
    """

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["defense.job.sample"] = "defense.job.sample"
    status: SampleStatus
    verdict: Verdict | None = None
    original: list[str] = Field(default_factory=list)
    purified: list[str] = Field(default_factory=list)
    masked_tokens: list[int] | int | None = None
    visual_tokens: int | None = None
    reason: str | None = None
    question: str | None = None
    score: float | None = None
    flagged: bool | None = None
    reasons: list[str] = Field(default_factory=list)
    heat: list[str] = Field(default_factory=list)
    preview: Preview | None = None
