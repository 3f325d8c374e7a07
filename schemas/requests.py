"""What a client may ask for when it creates a defense job."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.wire import Request

Auto = Literal["auto"]
Length = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""The largest is JSON's: beyond it, not every reader keeps all digits of a number."""
Phrase = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
MODEL_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
ModelId = Annotated[str, StringConstraints(pattern=MODEL_ID)]
FileId = Annotated[str, StringConstraints(pattern=r"^file_[0-9a-f]{32}$")]
MetadataKey = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\u0000]*$")
]
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\u0000]*$")]


class DispHyperparameters(Request):
    """DiSP's knobs; one left out takes the model card's default, then the paper's."""

    mask_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    probes: Annotated[int, Field(ge=1, le=1024)] | None = None
    top_logits: Annotated[int, Field(ge=2, le=1024)] | None = None
    masking: Literal["saliency", "random", "none"] | None = None
    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    retrain_epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    micro_batch: Annotated[int, Field(ge=1, le=65536)] | None = None
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    generation_length: Length | Auto | None = None
    block_length: Length | None = None
    steps: Length | Auto | None = None


class Method(Request):
    """The defence to run and its settings."""

    type: Literal["disp"] = "disp"
    hyperparameters: DispHyperparameters = Field(default_factory=DispHyperparameters)


class SuccessMatcher(Request):
    """An attack succeeded when the response contains any of `phrases`."""

    type: Literal["contains_any"] = "contains_any"
    phrases: Annotated[list[Phrase], Field(min_length=1, max_length=64)]


class Evaluation(Request):
    """What to measure: a triggered set with its success matcher, a clean set, or both."""

    triggered_file: FileId | None = None
    clean_file: FileId | None = None
    success: SuccessMatcher | None = None

    @model_validator(mode="after")
    def _attack_is_whole(self) -> Self:
        if (self.triggered_file is None) != (self.success is None):
            raise ValueError("triggered_file and success are given together or not at all")
        return self


class DefenseJobCreate(Request):
    """The body of `POST /v1/defense/jobs`."""

    model: ModelId
    training_file: FileId
    evaluation: Evaluation | None = None
    method: Method = Field(default_factory=Method)
    seed: Seed = 0
    suffix: Annotated[str, StringConstraints(max_length=64)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = Field(
        default_factory=dict
    )
