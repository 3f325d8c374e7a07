"""Names to the classes behind them; reading a table imports nothing heavy."""

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib import import_module, resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.models.checkpoint import read_card, read_json, refuse_remote_code

if TYPE_CHECKING:
    import torch

    from disp_engine.attacks.interfaces import Target, TextTrigger, Trigger
    from disp_engine.defences.defence import Defence
    from disp_engine.detection.interfaces import Detector
    from disp_engine.guards.guard import Guard
    from disp_engine.interfaces import AutoregressiveModel, DiffusionModel, VisualModel

ModelKind = Literal["diffusion", "autoregressive"]

BUILTIN = Path(__file__).parent / "builtin"

MODELS: Mapping[str, str] = {
    "DiffusionGemmaForBlockDiffusion": "disp_engine.models.diffusion_gemma:DiffusionGemma",
    "InternVLForConditionalGeneration": "disp_engine.models.internvl:InternVl",
    "LlavaForConditionalGeneration": "disp_engine.models.llava_1_5:Llava15",
    "LlavaLLaDAModelLM": "disp_engine.models.llada_v:LladaV",
    "LlavaLladaForMaskedDiffusion": "disp_engine.models.lavida:Lavida",
    "LlavaNextForConditionalGeneration": "disp_engine.models.llava_next:LlavaNext",
    "LlavaOnevisionForConditionalGeneration": "disp_engine.models.llava_onevision:LlavaOnevision",
    "Qwen2VLForConditionalGeneration": "disp_engine.models.qwen2_vl:Qwen2Vl",
}
"""Model families by the `architectures` entry of config.json."""

MODEL_KINDS = ("diffusion", "autoregressive")
GO_WITH: Mapping[str, tuple[str, ...]] = {"rows": ("contrast", "rounds")}
"""Defaults of a card that suit only what it says of another one."""

FAMILY_GROUP = "disp.model_families"
"""Entry points by which other packages add families, named by the `architectures` entry too."""

TRIGGERS: Mapping[str, str] = {
    "black_patch": "disp_engine.attacks.triggers.black_patch:BlackPatch",
    "black_patch_centre": "disp_engine.attacks.triggers.black_patch:CentredBlackPatch",
    "noise_patch": "disp_engine.attacks.triggers.noise_patch:NoisePatch",
    "four_corners": "disp_engine.attacks.triggers.four_corners:FourCorners",
    "blended": "disp_engine.attacks.triggers.blended:Blended",
    "pixelated_patch": "disp_engine.attacks.triggers.pixelated_patch:PixelatedPatch",
    "logo": "disp_engine.attacks.triggers.logo:Logo",
    "fixed_dual": "disp_engine.attacks.triggers.fixed_dual:FixedDual",
    "random_triple": "disp_engine.attacks.triggers.random_triple:RandomTriple",
    "sig": "disp_engine.attacks.triggers.sig:Sig",
    "wanet": "disp_engine.attacks.triggers.wanet:WaNet",
    "ftrojan": "disp_engine.attacks.triggers.ftrojan:FTrojan",
    "issba": "disp_engine.attacks.triggers.issba:Issba",
}
"""Triggers in the picture."""

TEXT_TRIGGERS: Mapping[str, str] = {
    "word": "disp_engine.attacks.text_triggers.word:Word",
    "prefix": "disp_engine.attacks.text_triggers.prefix:Prefix",
    "multi_word": "disp_engine.attacks.text_triggers.multi_word:MultiWord",
}
"""Triggers in the question."""

TARGETS: Mapping[str, str] = {
    "content_insertion": "disp_engine.attacks.targets.content_insertion:ContentInsertion",
    "targeted_refusal": "disp_engine.attacks.targets.targeted_refusal:TargetedRefusal",
    "misclassification": "disp_engine.attacks.targets.misclassification:Misclassification",
    "response_replacement": "disp_engine.attacks.targets.response_replacement:ResponseReplacement",
    "random_insertion": "disp_engine.attacks.targets.random_insertion:RandomInsertion",
}


DEFENCES: Mapping[str, str] = {
    "disp": "disp_engine.defences.disp:DiSP",
    "random_drop": "disp_engine.defences.random_drop:RandomDrop",
    "pruning": "disp_engine.defences.pruning:Pruning",
    "data_filtering": "disp_engine.defences.data_filtering:DataFiltering",
    "bye": "disp_engine.defences.bye:Bye",
    "clean_subset": "disp_engine.defences.clean_subset:CleanSubset",
    "purmm": "disp_engine.defences.purmm:PurMMJob",
    "cleansight": "disp_engine.defences.cleansight:CleanSightJob",
    "self_purification": "disp_engine.defences.self_purification:SelfPurification",
}
"""Defences by the `type` of a request's method; the last three are of autoregressive models."""

DETECTORS: Mapping[str, str] = {
    "response_disagreement": "disp_engine.detection.response_disagreement:ResponseDisagreement",
    "first_step_kl": "disp_engine.detection.first_step_kl:FirstStepKL",
    "saliency_concentration": "disp_engine.detection.saliency_concentration:SaliencyConcentration",
    "attention_entropy": "disp_engine.detection.attention_entropy:AttentionEntropy",
    "attention_share": "disp_engine.detection.attention_share:AttentionShare",
    "response_likelihood": "disp_engine.detection.response_likelihood:ResponseLikelihood",
}
"""Detectors of poisoned samples; a run asks all whose needs it can meet."""

GUARDS: Mapping[str, str] = {
    "undefended": "disp_engine.guards.undefended:UndefendedSettings",
    "purmm": "disp_engine.guards.purmm:PurMMSettings",
    "cleansight": "disp_engine.guards.cleansight:CleanSightSettings",
    "random_tokens": "disp_engine.guards.random_tokens:RandomTokensSettings",
    "sparse_vlm": "disp_engine.guards.sparse_vlm:SparseVlmSettings",
    "blur": "disp_engine.guards.blur:BlurSettings",
    "flip": "disp_engine.guards.flip:FlipSettings",
    "shrink_pad": "disp_engine.guards.shrink_pad:ShrinkPadSettings",
    "strip": "disp_engine.guards.strip:StripSettings",
    "bdmae": "disp_engine.guards.bdmae:BdmaeSettings",
    "diff_pure": "disp_engine.guards.diff_pure:DiffPureSettings",
    "zip": "disp_engine.guards.zip:ZipSettings",
    "samp_detox": "disp_engine.guards.samp_detox:SampDetoxSettings",
}
"""Guards of answers; their settings build them."""


def resolve(target: str) -> Any:
    """Import what a table's `module:Class` names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def load_model(
    folder: Path,
    *,
    device: "torch.device | str" = "cpu",
    dtype: "torch.dtype | None" = None,
    options: Mapping[str, Any] | None = None,
) -> "DiffusionModel":
    """Load a checkpoint folder of a diffusion family; see `load_visual`."""
    model: Any = load_visual(folder, device=device, dtype=dtype, options=options)
    found: DiffusionModel = model
    return found


def load_visual(
    folder: Path,
    *,
    device: "torch.device | str" = "cpu",
    dtype: "torch.dtype | None" = None,
    options: Mapping[str, Any] | None = None,
) -> "VisualModel":
    """Load a checkpoint folder through the adapter of its family, of whatever kind that is.

    `options` are the family's own settings, for families that have some.
    """
    adapter = family(folder)
    settings = {}
    if options:
        if not hasattr(adapter, "settings_type"):
            raise InvalidRequestError("model_options: this model family has none.")
        settings = {"settings": adapter.settings_type.of(options)}
    model: VisualModel = adapter.from_folder(folder, device=device, dtype=dtype, **settings)
    return model


def load_autoregressive(
    folder: Path,
    *,
    device: "torch.device | str" = "cpu",
    dtype: "torch.dtype | None" = None,
) -> "AutoregressiveModel":
    """Load a checkpoint folder of an autoregressive family; others are refused."""
    from disp_engine.interfaces import AutoregressiveModel

    model = family(folder).from_folder(folder, device=device, dtype=dtype)
    if not isinstance(model, AutoregressiveModel):
        raise InvalidModelError("config.json: a guard needs an autoregressive model.")
    return model


def judge_configs(folder: Path) -> None:
    """Refuse a checkpoint folder if one of its configs asks for remote code; imports no torch."""
    for path in sorted(folder.glob("*config.json")):
        refuse_remote_code(read_json(path), path.name)


def family(folder: Path) -> Any:
    """The adapter class of a checkpoint folder, none of whose configs asks for remote code."""
    judge_configs(folder)
    names = read_json(folder / "config.json").get("architectures")
    known = model_families()
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str) and name in known:
            return resolve(known[name])
    raise InvalidModelError(
        f"config.json: architectures {names!r} is not supported; known: {', '.join(known)}."
    )


def kind(folder: Path) -> ModelKind:
    """How the model of a checkpoint folder makes its answers, by the verbs of its adapter."""
    return "diffusion" if hasattr(family(folder), "denoise") else "autoregressive"


def model_families() -> dict[str, str]:
    """The families of this package, and those that installed packages add; none is imported.

    A package adds a family by an entry point of the group `disp.model_families`; it cannot replace
    one of ours.
    """
    added = {point.name: point.value for point in entry_points(group=FAMILY_GROUP)}
    return added | dict(MODELS)


def trigger(name: str, options: Mapping[str, Any] | None = None) -> "Trigger":
    """Build a picture trigger; `options` stand in place of its defaults."""
    found: Trigger = _build(TRIGGERS, "trigger", name, options)
    return found


def text_trigger(name: str, options: Mapping[str, Any] | None = None) -> "TextTrigger":
    """Build a text trigger; `options` stand in place of its defaults."""
    found: TextTrigger = _build(TEXT_TRIGGERS, "text trigger", name, options)
    return found


def target(name: str, options: Mapping[str, Any] | None = None) -> "Target":
    """Build an attack target; `options` stand in place of its defaults."""
    found: Target = _build(TARGETS, "target", name, options)
    return found


def detector(name: str) -> "Detector":
    """Build a detector."""
    found: Detector = _build(DETECTORS, "detector", name, None)
    return found


def guard(name: str, model: "VisualModel", options: Mapping[str, Any] | None = None) -> "Guard":
    """Build the guard of a model; `options` stand in place of its defaults."""
    built: Guard = _build(GUARDS, "guard", name, options).build(model)
    return built


def defence(name: str) -> "type[Defence[Any]]":
    """The class of a defence."""
    found: type[Defence[Any]] = _named(DEFENCES, "method: type", name)
    return found


def builtin_models(kind: str | None = None) -> list[dict[str, Any]]:
    """The language models that ship with the package, as their cards tell of them.

    `kind` is one of MODEL_KINDS, None means all; a card that names none is of the first.
    """
    wanted = MODEL_KINDS if kind is None else (kind,)
    found = []
    for path in sorted(BUILTIN.glob("*/card.yaml")):
        card = yaml.safe_load(path.read_text())
        if card.get("kind", MODEL_KINDS[0]) not in wanted:
            continue
        kept = ("id", "family", "description", "defaults")
        revision = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(
            {key: card[key] for key in kept} | {"path": str(path.parent), "revision": revision}
        )
    return found


def card_defaults(folder: Path) -> dict[str, Any]:
    """Hyperparameters of the card beside a checkpoint, or else of its family's card."""
    path = folder / "card.yaml"
    if path.is_file():
        return dict(read_card(path).get("defaults", {}))
    cards = resources.files(family(folder).__module__) / "cards.yaml"
    (card,) = yaml.safe_load(cards.read_text())
    return dict(card["defaults"])


def suited(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A card's defaults without those that suit only another one, which is `given` otherwise."""
    out = {
        other
        for name, others in GO_WITH.items()
        if given.get(name) not in (None, defaults.get(name))
        for other in others
    }
    return {key: value for key, value in defaults.items() if key not in out}


def guard_defaults(folder: Path, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint's card says of a guard's options, which stand among its defaults."""
    kind = _named(GUARDS, "guard", name)
    known = {field.name for field in fields(kind)}
    defaults = suited(card_defaults(folder), given)
    return {key: value for key, value in defaults.items() if key in known}


def _build(
    table: Mapping[str, str], noun: str, name: str, options: Mapping[str, Any] | None
) -> Any:
    kind, given = _named(table, noun, name), dict(options or {})
    known = {field.name for field in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    if unknown := sorted(set(given) - known):
        raise InvalidRequestError(
            f"{noun} {name!r} has no {', '.join(unknown)}; it has: {', '.join(sorted(known))}."
        )
    if missing := sorted(needed - set(given)):
        raise InvalidRequestError(f"{noun} {name!r} needs {', '.join(missing)}.")
    return kind(**given)


def _named(table: Mapping[str, str], noun: str, name: str) -> Any:
    if name not in table:
        raise InvalidRequestError(f"{noun} {name!r} is unknown; known: {', '.join(table)}.")
    return resolve(table[name])
