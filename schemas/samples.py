"""What became of one sample, as a job's `samples.jsonl` tells it, one line for each."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from schemas.wire import Resource


class SampleStatus(StrEnum):
    """What the purification did with a sample."""

    REWRITTEN = "rewritten"
    PASSED_THROUGH = "passed_through"
    QUARANTINED = "quarantined"


class Verdict(StrEnum):
    """Whether the model, with the salient tokens hidden, still said what the sample says."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"


class Sample(Resource):
    """One training sample: `original` and `purified` hold its responses, turn by turn."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["defense.job.sample"] = "defense.job.sample"
    status: SampleStatus
    verdict: Verdict | None = None
    original: list[str] = Field(default_factory=list)
    purified: list[str] = Field(default_factory=list)
    masked_tokens: int | None = None
    visual_tokens: int | None = None
    reason: str | None = None
