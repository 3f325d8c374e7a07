"""Writes a table's rows as JSON, CSV and Markdown, published numbers beside ours."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from disp_engine.bench.published import published_rows, published_statement
from disp_engine.bench.rows import share
from disp_engine.stages import write_atomically

NAMES = ("table", "model", "published", "trigger", "target", "poisoning_rate", "defence", "start",
         "trained", "seed", "mask_ratio", "objective")  # fmt: skip
RATES = ("asr_with_trigger", "asr_without_trigger", "clean_performance", "robust_performance",
         "recovery_performance", "true_positive_rate", "false_positive_rate",
         "token_agreement")  # fmt: skip
NUMBERS = ("relative_clean_performance", "trade_off", "defence_effectiveness",
           "robust_improvement", "cider", "auroc", "latency_ratio", "seconds")  # fmt: skip

VARIED = ("trained", "mask_ratio", "objective")
"""What is varied besides, in some tables."""

Row = Mapping[str, Any]


def content(rows: Sequence[Row], table: str, *, quick: bool) -> dict[str, Any]:
    """What the JSON file holds; a quick run's numbers are marked as meaningless."""
    found = {
        "rows": list(rows),
        "published": published_rows(table),
        "published_statement": published_statement(table),
        "quick": quick,
    }
    return {name: value for name, value in found.items() if value is not None}


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Write the JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(found, indent=1, allow_nan=False).encode())


def write_csv(path: Path, found: Mapping[str, Any]) -> None:
    """One line for each row, ours first; a rate takes a share, its counts and its interval."""
    parts = ("rate", "successes", "scored", "failed", "low", "high")
    columns = [*NAMES, *(f"{name}.{part}" for name in RATES for part in parts), *NUMBERS]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in (*found["rows"], *found["published"]):
        writer.writerow(_flat(row))
    write_atomically(path, text.getvalue().encode())


def write_markdown(path: Path, table: str, found: Mapping[str, Any]) -> None:
    """A table for people."""
    lines = [f"# {table}", ""]
    if found["quick"]:
        lines += ["**Quick run: it shows that every cell runs; its numbers mean nothing.**", ""]
    lines += ["Rates in per cent with successes/scored and the 95 % interval. RCP is relative to",
              "the undefended row. *Published* rows are of another model and were not measured",
              "here.", ""]  # fmt: skip
    header = ("model", "trigger", "target", "poison", "defence", "start", "ASR with trigger",
              "ASR without", "clean performance", "RCP", "also")  # fmt: skip
    lines += [_line(header), _line(["---"] * len(header))]
    lines += [_line(_cells(row)) for row in (*found["rows"], *found["published"])]
    if statement := found.get("published_statement"):
        lines += ["", f"*Published:* {statement}"]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _flat(row: Row) -> dict[str, Any]:
    flat = {name: row[name] for name in (*NAMES, *NUMBERS) if row.get(name) is not None}
    for name in RATES:
        rate = row.get(name) or {}
        for part in ("rate", "successes", "scored", "failed"):
            flat[f"{name}.{part}"] = rate.get(part, "")
        flat[f"{name}.low"], flat[f"{name}.high"] = rate.get("ci95") or ("", "")
    return flat


def _cells(row: Row) -> list[str]:
    model = f"{row['model']} (*published*)" if row.get("published") else str(row["model"])
    rcp = row.get("relative_clean_performance")
    return [
        model, row["trigger"], row["target"], f"{100 * row['poisoning_rate']:g} %",
        row["defence"], row.get("start", ""), _rate(row.get("asr_with_trigger")),
        _rate(row.get("asr_without_trigger")), _rate(row.get("clean_performance")),
        "" if rcp is None else f"{100 * rcp:.1f}", _also(row),
    ]  # fmt: skip


def _rate(rate: Row | None) -> str:
    if not rate or rate["rate"] is None:
        return ""
    text = f"{100 * rate['rate']:.1f}"
    if "scored" not in rate:
        return text
    low, high = (100 * bound for bound in rate["ci95"])
    return f"{text} ({rate['successes']}/{rate['scored']}, {low:.1f}–{high:.1f})"


def _also(row: Row) -> str:
    told = [f"{name} {row[name]}" for name in VARIED if name in row]
    if "filter" in row:
        told.append(f"F1 {row['filter']['f1'] or 0:.2f}")
    if "kinds" in row:
        shares = {k: v if isinstance(v, float) else share(v) for k, v in row["kinds"].items()}
        told += [f"{kind} {100 * v:.1f}" for kind, v in shares.items() if v is not None]
    if "detection" in row:
        told.append(_detection(row["detection"]))
    told += _attributions(row.get("modality", {})) + _guarded(row)
    return "; ".join(told)


def _detection(found: Row) -> str:
    areas = {**found["areas"], "together": found["auroc"]}
    told = [f"{name} {area:.3f}" for name, area in areas.items() if area is not None]
    verdict = "poisoned" if found["poisoned"] else "clean"
    place = "" if found.get("iou") is None else f"; IoU {found['iou']:.2f}"
    return (
        f"verdict {verdict} (p = {found['p_value']:.1g}); AUROC: {', '.join(told) or 'none'}{place}"
    )


def _guarded(row: Row) -> list[str]:
    """What tables of guards tell besides; published rows tell a part of it."""
    if not ("recovery_performance" in row or row.get("published")):
        return []
    ratio = row.get("latency_ratio")
    told = {"RP": share(row.get("recovery_performance")), "TP": row.get("trade_off")}
    shares = [f"{name} {100 * value:.1f}" for name, value in told.items() if value is not None]
    latency = [] if ratio is None else [f"latency {ratio:.2f} x"]
    return [*shares, *_flagged(row), *latency, *_options(row)]


def _options(row: Row) -> list[str]:
    """What the guard was told, where the defence's name does not tell it."""
    told = [f"{name} {v:g}" if isinstance(v, float) else f"{name} {v}"
            for name, v in row.get("options", {}).items()
            if v is not None and f"{name}=" not in row["defence"]]  # fmt: skip
    return [f"told: {', '.join(told)}"] if told else []


def _flagged(row: Row) -> list[str]:
    """What a guard tells that detects."""
    if row.get("auroc") is None:
        return []
    right, wrong = (
        f"{rate['successes']}/{rate['scored']}"
        for rate in (row["true_positive_rate"], row["false_positive_rate"])
    )
    return [f"AUROC {row['auroc']:.3f}", f"flagged {right}, wrongly {wrong}"]


def _attributions(modality: Row) -> list[str]:
    told = []
    for form in ("asr", "cosine"):
        if form in modality:
            found = modality[form]
            phi_image, phi_text, cti = (found[k]["value"] for k in ("phi_image", "phi_text", "cti"))
            told.append(f"{form} form (derived): φI {phi_image:.3f} φT {phi_text:.3f} "
                        f"CTI {cti:.3f}")  # fmt: skip
            if found["saturated"]:
                told.append(f"saturated: {', '.join(found['saturated'])}")
    return told


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
