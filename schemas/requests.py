"""What a client may ask for when it creates a defense job."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from schemas.wire import Request

METHOD_TYPES = (
    "disp", "random_drop", "pruning", "data_filtering", "clean_subset", "bye",
)  # fmt: skip
Auto = Literal["auto"]
Validation = Literal["strict", "quarantine"]
"""What a fault in the data costs: the job, with all faults told, or the sample it is in."""
ExtraArtifact = Literal["merged_checkpoint"]
"""What a job leaves beside the rest: the model's whole folder with the purified projector."""
Length = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""The largest is JSON's: beyond it, not every reader keeps all digits of a number."""
Phrase = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
MODEL_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
ModelId = Annotated[str, StringConstraints(pattern=MODEL_ID)]
FileId = Annotated[str, StringConstraints(pattern=r"^file_[0-9a-f]{32}$")]
WebhookEndpointId = Annotated[str, StringConstraints(pattern=r"^whe_[0-9a-f]{32}$")]
MetadataKey = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\u0000]*$")
]
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\u0000]*$")]

OptionValue = MetadataValue | int | Annotated[float, Field(allow_inf_nan=False)]
OnlyNamed = Field(max_length=16, json_schema_extra={"additionalProperties": False})
"""A few entries; the document, too, forbids keys that the pattern does not match."""


class DefenceHyperparameters(Request):
    """What every defence can be told; one left out takes the model card's default."""

    start: Literal["compromised", "base"] | None = None
    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    retrain_share: Annotated[float, Field(gt=0, le=1)] | None = None
    retrain_epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    retrain_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    micro_batch: Annotated[int, Field(ge=1, le=65536)] | None = None
    fit_memory: bool | None = None
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] | None = None
    generation_length: Length | Auto | None = None
    block_length: Length | None = None
    steps: Length | Auto | None = None


class DispHyperparameters(DefenceHyperparameters):
    """DiSP's knobs; one left out takes the model card's default, then the paper's."""

    mask_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    text_mask_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    probes: Annotated[int, Field(ge=1, le=1024)] | None = None
    top_logits: Annotated[int, Field(ge=2, le=1024)] | None = None
    estimator: Literal["eigen", "gaussian"] | None = None
    score: Literal["paper", "path"] | None = None
    masking: Literal["saliency", "random", "none"] | None = None
    rewrite_above: Annotated[float, Field(ge=-10, le=10)] | Auto | None = None


class RandomDropHyperparameters(DefenceHyperparameters):
    """Random drop's share."""

    drop_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None


class PruningHyperparameters(DefenceHyperparameters):
    """Magnitude pruning's share, and whether one threshold serves all layers."""

    prune_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    scope: Literal["global", "layer"] | None = None


class OracleHyperparameters(DefenceHyperparameters):
    """What an oracle is told: which samples are poisoned."""

    poisoned_ids: Annotated[list[str], Field(max_length=200_000)]


class CleanSubsetHyperparameters(OracleHyperparameters):
    """The share of the clean samples that is tuned on."""

    clean_ratio: Annotated[float, Field(gt=0, le=1)] | None = None


class ByeHyperparameters(DefenceHyperparameters):
    """BYE's separation and its smallest group."""

    tau: Annotated[float, Field(gt=0, le=100)] | None = None
    least_weight: Annotated[float, Field(ge=0, lt=0.5)] | None = None


class Method(Request):
    """DiSP and its settings."""

    type: Literal["disp"] = "disp"
    hyperparameters: DispHyperparameters = Field(default_factory=DispHyperparameters)


class RandomDropMethod(Request):
    """Tune again on a random part of the data."""

    type: Literal["random_drop"]
    hyperparameters: RandomDropHyperparameters = Field(default_factory=RandomDropHyperparameters)


class PruningMethod(Request):
    """Zero the projector's smallest weights."""

    type: Literal["pruning"]
    hyperparameters: PruningHyperparameters = Field(default_factory=PruningHyperparameters)


class DataFilteringMethod(Request):
    """Tune again without the poisoned samples, which are given."""

    type: Literal["data_filtering"]
    hyperparameters: OracleHyperparameters


class CleanSubsetMethod(Request):
    """Tune again on a small subset of the clean samples; the poisoned ones are given."""

    type: Literal["clean_subset"]
    hyperparameters: CleanSubsetHyperparameters


class ByeMethod(Request):
    """Tune again without the samples that BYE finds suspicious."""

    type: Literal["bye"]
    hyperparameters: ByeHyperparameters = Field(default_factory=ByeHyperparameters)


def _method_type(given: Any) -> str:
    """A method without a type is DiSP."""
    named = given.get("type", "disp") if isinstance(given, dict) else getattr(given, "type", "")
    return str(named)


AnyMethod = Annotated[
    Annotated[Method, Tag("disp")]
    | Annotated[RandomDropMethod, Tag("random_drop")]
    | Annotated[PruningMethod, Tag("pruning")]
    | Annotated[DataFilteringMethod, Tag("data_filtering")]
    | Annotated[CleanSubsetMethod, Tag("clean_subset")]
    | Annotated[ByeMethod, Tag("bye")],
    Discriminator(
        _method_type,
        custom_error_type="unknown_method",
        custom_error_message=f"Input should have one of the types {', '.join(METHOD_TYPES)}",
    ),
]
"""The defence to run and its settings, told apart by `type`."""


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
    """The body of `POST /v1/defense/jobs`.

    With a `model_revision`, the model has to be of that revision, now and when a worker begins.
    """

    model: ModelId
    model_revision: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    training_file: FileId
    evaluation: Evaluation | None = None
    method: AnyMethod = Field(default_factory=Method)
    validation: Validation = "quarantine"
    artifacts: Annotated[list[ExtraArtifact], Field(max_length=8)] = Field(default_factory=list)
    model_options: Annotated[dict[MetadataKey, OptionValue], OnlyNamed] = Field(
        default_factory=dict
    )
    """Settings of the model family's own, by the names that docs/models.md lists."""
    seed: Seed = 0
    suffix: Annotated[str, StringConstraints(max_length=64)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], OnlyNamed] = Field(default_factory=dict)
    webhook: WebhookEndpointId | None = None
    """Only this endpoint is told of the job's end, instead of all that listen for it."""
