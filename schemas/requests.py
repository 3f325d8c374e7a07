"""What a client may ask for when it creates a defense job."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from schemas.models import ModelKind
from schemas.wire import Request

METHOD_TYPES = (
    "disp", "random_drop", "pruning", "data_filtering", "clean_subset", "bye", "purmm",
    "cleansight", "self_purification",
)  # fmt: skip
METHOD_KINDS: Mapping[str, ModelKind] = {
    "disp": "diffusion",
    "bye": "diffusion",
    "purmm": "autoregressive",
    "cleansight": "autoregressive",
    "self_purification": "autoregressive",
}
"""The kind of model that a method needs; methods that are not here need none."""
Auto = Literal["auto"]
Validation = Literal["strict", "quarantine"]
"""What a fault in the data costs: the job, with all faults told, or the sample it is in."""
ExtraArtifact = Literal["merged_checkpoint"]
"""What a job leaves beside the rest: the model's whole folder with the purified projector."""
AskedStage = Literal["detect", "purify", "retrain", "evaluate"]
"""A part of the pipeline: the verdict, the purified dataset, the projector, the rates."""
ALL_STAGES: tuple[AskedStage, ...] = ("detect", "purify", "retrain", "evaluate")
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
    kv_cache: Literal["none", "prefix", "dual"] | None = None
    parallel_threshold: Annotated[float, Field(gt=0, le=1)] | None = None


class DispHyperparameters(DefenceHyperparameters):
    """DiSP's knobs; one left out takes the model card's default, then the paper's."""

    mask_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    text_mask_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    probes: Annotated[int, Field(ge=1, le=1024)] | None = None
    top_logits: Annotated[int, Field(ge=2, le=1024)] | None = None
    estimator: Literal["orthogonal", "eigen", "gaussian"] | None = None
    score: Literal["paper", "path", "sufficiency"] | None = None
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


class PurmmHyperparameters(DefenceHyperparameters):
    """PurMM's rows, clustering, reference set, contrast and rounds: see docs/guards.md."""

    rows: Literal["answer", "all_causal", "last"] | None = None
    clustering: Literal["kmeans", "gmm", "dbscan"] | None = None
    reference: (
        Literal[
            "deep_half", "deep_half_and_one", "middle_layer", "most_frequent_8",
            "most_frequent_5", "shallow_filtered", "none",
        ]
        | None
    ) = None  # fmt: skip
    contrast: Annotated[float, Field(gt=1, le=1e6)] | None = None
    rounds: Annotated[int, Field(ge=1, le=64)] | None = None


class CalibrationHyperparameters(DefenceHyperparameters):
    """CleanSight's layers and thresholds."""

    first_layer: Annotated[int, Field(ge=0, le=1024)] | None = None
    last_layer: Annotated[int, Field(ge=0, le=1024)] | None = None
    percentile: Annotated[float, Field(ge=0, le=100)] | None = None
    tau: Annotated[float, Field(ge=0, le=1)] | None = None


class CleansightHyperparameters(CalibrationHyperparameters):
    """The same, and the share of the clean set that is learnt from."""

    calibration_share: Annotated[float, Field(gt=0, lt=1)] | None = None


class SelfPurificationHyperparameters(PurmmHyperparameters, CalibrationHyperparameters):
    """The guard under which responses are given anew, and whether all of them are replaced."""

    guard: Literal["purmm", "cleansight"] | None = None
    replace_only_flagged: bool | None = None


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


class PurmmMethod(Request):
    """Measure PurMM before the tuned model; autoregressive models only."""

    type: Literal["purmm"]
    hyperparameters: PurmmHyperparameters = Field(default_factory=PurmmHyperparameters)


class CleansightMethod(Request):
    """Calibrate CleanSight on the clean set and measure it; autoregressive models only."""

    type: Literal["cleansight"]
    hyperparameters: CleansightHyperparameters = Field(default_factory=CleansightHyperparameters)


class SelfPurificationMethod(Request):
    """Replace responses by the model's own guarded ones; autoregressive models only."""

    type: Literal["self_purification"]
    hyperparameters: SelfPurificationHyperparameters = Field(
        default_factory=SelfPurificationHyperparameters
    )


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
    | Annotated[ByeMethod, Tag("bye")]
    | Annotated[PurmmMethod, Tag("purmm")]
    | Annotated[CleansightMethod, Tag("cleansight")]
    | Annotated[SelfPurificationMethod, Tag("self_purification")],
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


def _each_once(stages: list[AskedStage]) -> list[AskedStage]:
    if len(set(stages)) < len(stages):
        raise ValueError("name each stage once")
    return stages


AskedStages = Annotated[
    list[AskedStage],
    Field(min_length=1, max_length=len(ALL_STAGES), json_schema_extra={"uniqueItems": True}),
    AfterValidator(_each_once),
]


class JobOptions(Request):
    """What a job may be told beside its model, its data and its method, by either of its names.

    With a `model_revision`, the model has to be of that revision, now and when a worker begins. A
    `checkpoint_file` is a projector in safetensors from which the job starts instead of the model's
    own. The projector is always tuned on the data first; `stages` say what is then asked for:
    `detect` the verdict, `purify` the purified dataset, `retrain` the purified projector, and
    `evaluate` the rates before and, where there is a purified projector, after.
    """

    model_revision: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    checkpoint_file: FileId | None = None
    evaluation: Evaluation | None = None
    stages: AskedStages = Field(default_factory=lambda: list(ALL_STAGES))
    validation: Validation = "quarantine"
    artifacts: Annotated[list[ExtraArtifact], Field(max_length=8)] = Field(default_factory=list)
    model_options: Annotated[dict[MetadataKey, OptionValue], OnlyNamed] = Field(
        default_factory=dict
    )
    """Settings of the model family's own, by the names that docs/models.md lists."""
    suffix: Annotated[str, StringConstraints(max_length=64)] | None = None
    webhook: WebhookEndpointId | None = None
    """Only this endpoint is told of the job's end, instead of all that listen for it."""

    def require_stages(self, method: AnyMethod) -> None:
        """Raise ValueError where a stage or a setting needs a stage that is not asked for."""
        asked = set(self.stages)
        if "retrain" in asked and "purify" not in asked:
            raise ValueError("stages: retrain needs purify")
        if self.artifacts and "retrain" not in asked:
            raise ValueError("artifacts: merged_checkpoint needs the stage retrain")
        if not isinstance(method, Method):
            if "detect" in asked and "purify" not in asked:
                raise ValueError(f"stages: {method.type} has no verdict; ask for purify")
        elif method.hyperparameters.rewrite_above is not None and (
            "purify" in asked and "detect" not in asked
        ):
            raise ValueError("stages: rewrite_above needs detect")


class DefenseJobCreate(JobOptions):
    """The body of `POST /v1/defense/jobs`."""

    model: ModelId
    training_file: FileId
    method: AnyMethod = Field(default_factory=Method)
    seed: Seed = 0
    metadata: Annotated[dict[MetadataKey, MetadataValue], OnlyNamed] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _stages_suffice(self) -> Self:
        self.require_stages(self.method)
        return self
