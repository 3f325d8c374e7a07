"""Which cells each table and figure has. One setting serves all cells; none is tuned by itself."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from disp_engine import registry
from disp_engine.attacks.settings import AttackSettings
from disp_engine.bench.cells import Cell

TARGETS = ("targeted_refusal", "content_insertion", "misclassification")
INSERTION = AttackSettings(target="content_insertion")
BASELINES = ("random_drop", "pruning", "data_filtering", "bye", "disp")
FROM_BASE = ("random_drop", "data_filtering", "bye", "disp")
RATIOS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75)
RATES = (0.1, 0.2, 0.3, 0.4, 0.5)
DETECTION_RATES = (0.1, 0.02, 0.2, 0.05, 0.5, 0.01)
CLEAN_SETS = 100
ONE_PATCH = ("black_patch", "black_patch_centre", "noise_patch", "pixelated_patch", "logo")
PAPER_TRIGGERS = ("black_patch", "noise_patch", "four_corners", "blended")


def table1() -> Iterable[Cell]:
    """Table 1: three targets, all baselines, both starting points (LLaDA-V)."""
    for target in TARGETS:
        yield from _against_all("table1", AttackSettings(target=target))


def table2() -> Iterable[Cell]:
    """Table 2: the same on LaViDa, trigger in the centre, 40 % poison for misclassification."""
    for target in TARGETS:
        rate = 0.4 if target == "misclassification" else 0.2
        yield from _against_all("table2", AttackSettings("black_patch_centre", target, rate))


def table3() -> Iterable[Cell]:
    """Table 3: other triggers, and by which score tokens are hidden."""
    for trigger in PAPER_TRIGGERS:
        for defence in ("none", "disp", "disp_sufficiency"):
            yield Cell("table3", replace(INSERTION, trigger=trigger), defence)


def table4() -> Iterable[Cell]:
    """Table 4: clean performance by benchmark; in the built-in world, by kind of question."""
    for target in TARGETS:
        for defence in ("clean", "none", "disp"):
            yield Cell("table4", AttackSettings(target=target), defence, measure="kinds")


def figure2() -> Iterable[Cell]:
    """Figure 2: masking at inference, by mask ratio."""
    for target in TARGETS:
        for ratio in RATIOS:
            yield Cell("figure2", AttackSettings(target=target), "none", mask_ratio=ratio)


def figure3() -> Iterable[Cell]:
    """Figure 3: poisoning rates."""
    for rate in RATES:
        for defence in ("none", "random_drop", "pruning", "data_filtering", "disp"):
            yield Cell("figure3", replace(INSERTION, rate=rate), defence)


def figure4() -> Iterable[Cell]:
    """Figure 4: both ablations."""
    for target in TARGETS:
        for defence in ("none", "disp_no_mask", "disp_random_mask", "disp"):
            yield Cell("figure4", AttackSettings(target=target), defence)


def modality() -> Iterable[Cell]:
    """TMA and CTI of a dual trigger, before and after the defence."""
    for mode in ("or", "and"):
        attack = replace(INSERTION, text_trigger="word", mode=mode)
        for defence in ("none", "disp"):
            yield Cell("modality", attack, defence, measure="modality")


def triggers() -> Iterable[Cell]:
    """Every trigger there is, also those that the paper does not try."""
    for trigger in registry.TRIGGERS:
        yield from _pair("triggers", replace(INSERTION, trigger=trigger))
    for text in registry.TEXT_TRIGGERS:
        attack = replace(INSERTION, trigger=None, text_trigger=text)
        yield from _pair("triggers", attack)
        yield Cell("triggers", attack, "disp_text_mask")


def training_side() -> Iterable[Cell]:
    """Attackers who also control the training."""
    attack = AttackSettings(target="random_insertion")
    for objective in (None, "trojvlm", "vlood"):
        for defence in ("none", "disp"):
            yield Cell("training_side", attack, defence, objective=objective)


def detection() -> Iterable[Cell]:
    """AUROC of the verdict's scores and the verdict, over triggers, targets and rates."""
    pictures = [replace(INSERTION, trigger=name) for name in registry.TRIGGERS]
    texts = [replace(INSERTION, trigger=None, text_trigger=name) for name in registry.TEXT_TRIGGERS]
    for rate in DETECTION_RATES:
        for target in TARGETS:
            for attack in (*pictures, *texts):
                varied = replace(attack, target=target, rate=rate)
                yield Cell("detection", varied, "disp", measure="verdict")


def recovery() -> Iterable[Cell]:
    """Place, pattern and ASR of the recovered trigger; AUROC of every detector."""
    for trigger in ONE_PATCH:
        for target in TARGETS:
            attack = AttackSettings(trigger, target)
            yield Cell("recovery", attack, "disp", measure="detection")


def false_alarms() -> Iterable[Cell]:
    """The verdict on a hundred datasets that were never poisoned."""
    for draw in range(CLEAN_SETS):
        attack = replace(INSERTION, rate=0.0)
        yield Cell("false_alarms", attack, "disp", measure="verdict", draw=draw)


TABLES: Mapping[str, Callable[[], Iterable[Cell]]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "figure2": figure2,
    "figure3": figure3,
    "figure4": figure4,
    "modality": modality,
    "triggers": triggers,
    "training_side": training_side,
    "detection": detection,
    "recovery": recovery,
    "false_alarms": false_alarms,
}


def _against_all(table: str, attack: AttackSettings) -> Iterable[Cell]:
    for defence in ("clean", "none", *BASELINES):
        yield Cell(table, attack, defence)
    for defence in FROM_BASE:
        yield Cell(table, attack, defence, start="base")


def _pair(table: str, attack: AttackSettings) -> Iterable[Cell]:
    for defence in ("none", "disp"):
        yield Cell(table, attack, defence)
