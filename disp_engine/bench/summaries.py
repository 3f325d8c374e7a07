"""What a table's rows say together, where a table is asked one question."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from disp_engine import registry
from disp_engine.attacks.interfaces import PatchTrigger
from disp_engine.bench.rows import share
from disp_engine.metrics.rate import Rate

Row = Mapping[str, Any]
LEAST_RATE = 0.02
"""Poisoning rate from which on a verdict is expected to be right."""
LOCATED = 0.5
"""Least intersection over union, in tokens, of a trigger that was found."""
CLOSE = 0.05
"""Most difference between the ASR of a recovered trigger and of the true one."""


def summary(table: str, rows: Sequence[Row]) -> dict[str, Any]:
    """By the table's name; nothing for tables whose rows speak for themselves."""
    return SUMMARIES[table](rows) if table in SUMMARIES else {}


def false_alarms(rows: Sequence[Row]) -> dict[str, Any]:
    """The share of clean datasets that are called poisoned."""
    return {"false_alarms": _share(row["detection"]["poisoned"] for row in rows)}


def detection(rows: Sequence[Row]) -> dict[str, Any]:
    """AUROC by the kind of trigger, and how often poisoned datasets are called so."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(kind_of(row["trigger"]), []).append(row)
    expected = [row for row in rows if row["poisoning_rate"] >= LEAST_RATE]
    return {
        "auroc": {kind: _least_area(mine) for kind, mine in kinds.items()},
        "verdicts": _share(row["detection"]["poisoned"] for row in expected),
    }


def recovery(rows: Sequence[Row]) -> dict[str, Any]:
    """How often the trigger was located, and how often its own ASR tells the true one."""
    return {
        "located": _share((row["detection"]["iou"] or 0) >= LOCATED for row in rows),
        "recovered_asr_close": _share(_close(row) for row in rows),
    }


SUMMARIES: Mapping[str, Callable[[Sequence[Row]], dict[str, Any]]] = {
    "false_alarms": false_alarms,
    "detection": detection,
    "recovery": recovery,
}


def kind_of(trigger: str) -> str:
    """Whether a trigger's mark is local or global, or stands in the text."""
    if trigger in registry.TEXT_TRIGGERS:
        return "text"
    return "local" if isinstance(registry.trigger(trigger), PatchTrigger) else "global"


def _least_area(rows: Sequence[Row]) -> dict[str, Any]:
    """The smallest, and of which dataset it is."""
    known = [row for row in rows if row["detection"]["auroc"] is not None]
    worst = min(known, key=lambda row: float(row["detection"]["auroc"]), default=None)
    if worst is None:
        return {"least": None, "datasets": 0}
    named = {name: worst[name] for name in ("trigger", "target", "poisoning_rate")}
    return {"least": worst["detection"]["auroc"], "of": named, "datasets": len(known)}


def _close(row: Row) -> bool:
    found = row["detection"]
    recovered, true = share((found["recovered"] or {}).get("before", {}).get("asr")), found["asr"]
    if recovered is None or not true or true["rate"] is None:
        return False
    return round(abs(recovered - float(true["rate"])), 6) <= CLOSE


def _share(outcomes: Iterable[bool]) -> dict[str, Any]:
    found = list(outcomes)
    return Rate(sum(found), len(found)).to_json()
