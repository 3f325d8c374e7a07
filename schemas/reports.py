"""The report of a defense job; `extra="allow"` because the engine may say more than we ask."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ReportPart(BaseModel):
    """A part of the report; fields we do not know are kept."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class Rate(ReportPart):
    """`successes / scored` with a 95 % interval; failed samples are counted, never scored."""

    rate: float | None = None
    successes: int = Field(ge=0)
    scored: int = Field(ge=0)
    failed: int = Field(ge=0)
    ci95: tuple[float, float] | None = None


class Measurement(ReportPart):
    """One evaluation of one projector; a rate is null when the request gave no file for it."""

    asr_with_trigger: Rate | None = None
    asr_without_trigger: Rate | None = None
    clean_performance: Rate | None = None
    token_agreement: Rate | None = None
    robust_performance: Rate | None = None


class EvaluationReport(ReportPart):
    """The compromised model beside the purified one."""

    before: Measurement
    after: Measurement
    relative_clean_performance: float | None = None


class SampleCounts(ReportPart):
    """What became of the samples; all but `total` sum to it."""

    total: int = Field(ge=0)
    rewritten: int = Field(ge=0)
    passed_through: int = Field(ge=0)
    kept: int = Field(ge=0, default=0)
    removed: int = Field(ge=0, default=0)
    quarantined: int = Field(ge=0)


class QuarantinedSample(ReportPart):
    """A sample that could not be rewritten: it is in no output and was not trained on."""

    id: str
    reason: str


class StageTime(ReportPart):
    """How long a stage took, and whether an earlier run's result was reused."""

    name: str
    seconds: float = Field(ge=0)
    reused: bool = False


class DetectorFinding(ReportPart):
    """What one detector says of the dataset.

    A `telling` one sees the group apart; `p_value` is null for those that only rank and explain.
    """

    p_value: float | None = Field(default=None, ge=0, le=1)
    telling: bool


class TargetFinding(ReportPart):
    """What flagged responses share; `sentence` says it for people."""

    phrase: str | None = None
    sentence: str


class TriggerFinding(ReportPart):
    """The recovered trigger; `box` is left, top, right, bottom as shares of the picture.

    Its pattern, if it has a steady one of `patch_size` pixels, is the artifact `trigger.png`;
    `words` are phrases of flagged questions that hardly any other holds.
    """

    kind: Literal["local", "global", "text", "unknown"]
    box: tuple[float, float, float, float] | None = None
    patch_size: tuple[int, int] | None = None
    words: list[str] = Field(default_factory=list)


class RecoveredSuccess(ReportPart):
    """How often the recovered trigger makes the model say the inferred target."""

    before: Rate | None = None
    after: Rate | None = None
    held_out: bool


class Estimate(ReportPart):
    """A mean with its 95 % interval."""

    value: float
    ci95: tuple[float, float]


class ModalityAttribution(ReportPart):
    """How much of the recovered trigger's success its picture and its words carry.

    `phi_image` and `phi_text` are Shapley values (TMA), `cti` is their interaction; `means` holds
    the success without trigger, with either part and with both, over `items`.
    """

    phi_image: Estimate
    phi_text: Estimate
    cti: Estimate
    means: dict[str, float]
    items: int = Field(ge=0)


class RecoveredModality(ReportPart):
    """The attribution before and after purification."""

    before: ModalityAttribution | None = None
    after: ModalityAttribution | None = None


class VerdictReport(ReportPart):
    """Whether the dataset is poisoned: `poisoned` if `p_value` is below `alpha`.

    `alpha` is the false-alarm rate that is aimed at for clean data; samples whose score is above
    `threshold` are flagged.
    """

    poisoned: bool
    p_value: float = Field(ge=0, le=1)
    alpha: float
    threshold: float | None = None
    flagged: int = Field(ge=0)
    scored: int = Field(ge=0)
    detectors: dict[str, DetectorFinding] = Field(default_factory=dict)
    target: TargetFinding | None = None
    trigger: TriggerFinding | None = None
    recovered_asr: RecoveredSuccess | None = None
    modality: RecoveredModality | None = None


class GuardDetection(ReportPart):
    """How well the guard tells triggered questions from clean ones; null where it does not."""

    auroc: float | None = Field(default=None, ge=0, le=1)
    true_positive_rate: Rate
    false_positive_rate: Rate


class GuardReport(ReportPart):
    """What a guard was measured to do; `evaluation.after` is measured under it.

    `removed_tokens` are means over the questions of each set.
    """

    name: str
    detection: GuardDetection
    removed_tokens: dict[str, float] = Field(default_factory=dict)
    trade_off: float | None = None


class Latency(ReportPart):
    """A guarded answer's time against a bare one's, in the same run, `batch` at a time."""

    seconds_per_question: float | None = None
    latency_ratio: float | None = None
    batch: int = Field(ge=1)


class Report(ReportPart):
    """`report.json`: what the defence did, what it measured, and with which settings."""

    evaluation: EvaluationReport
    samples: SampleCounts
    quarantined: list[QuarantinedSample] = Field(default_factory=list)
    stages: list[StageTime]
    settings: dict[str, Any]
    seeds: dict[str, Any]
    versions: dict[str, Any]
    hashes: dict[str, Any]
    saliency: dict[str, Any] = Field(default_factory=dict)
    verdict: VerdictReport | None = None
    guard: GuardReport | None = None
    latency: Latency | None = None
    content_sha256: str
