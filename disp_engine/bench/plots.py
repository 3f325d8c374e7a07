"""Pictures of tables and figures with matplotlib; published numbers are hollow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from disp_engine.bench.rows import share

Row = Mapping[str, Any]
LINES = {"figure2": "mask_ratio", "figure3": "poisoning_rate"}
"""Figures over a number, and which; everything else is bars."""


def plot(path: Path, table: str, found: Mapping[str, Any]) -> None:
    """Draw ASR with trigger, and clean performance below it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    draw = _lines if table in LINES else _bars
    draw(upper, found["rows"], table, "asr_with_trigger")
    draw(lower, found["rows"], table, "clean_performance")
    if table not in LINES:
        _published(upper, found, "asr_with_trigger")
    upper.set_ylabel("ASR with trigger, %")
    lower.set_ylabel("clean performance, %")
    for axes in (upper, lower):
        axes.set_ylim(-3, 103)
        axes.grid(axis="y", alpha=0.3)
    upper.set_title(f"{table}, quick: numbers mean nothing" if found["quick"] else table)
    figure.savefig(path, dpi=120)


def _lines(axes: Any, rows: Sequence[Row], table: str, rate: str) -> None:
    over = LINES[table]
    for key in dict.fromkeys(_series(row) for row in rows):
        mine = [row for row in rows if _series(row) == key and row[rate]]
        if table == "figure3":
            mine.sort(key=lambda row: float(row[over]))
        values = [100 * (share(row[rate]) or 0) for row in mine]
        axes.plot([row[over] for row in mine], values, marker="o", label=key)
    axes.set_xlabel(over.replace("_", " "))
    axes.legend(fontsize=7)


def _series(row: Row) -> str:
    return f"{row['target']}, {row['defence']}"


def _bars(axes: Any, rows: Sequence[Row], table: str, rate: str) -> None:
    measured = [(place, row[rate]) for place, row in enumerate(rows) if row.get(rate)]
    shares = [100 * (share(r) or 0) for _, r in measured]
    axes.bar([place for place, _ in measured], shares, color="tab:blue", label="ours")
    for (place, found), value in zip(measured, shares, strict=True):
        if found["ci95"]:
            low, high = (100 * bound for bound in found["ci95"])
            errors = [[max(0, value - low)], [max(0, high - value)]]
            axes.errorbar(place, value, yerr=errors, color="black", capsize=2, linewidth=1)
    axes.set_xticks(range(len(rows)), [_label(row) for row in rows], rotation=90, fontsize=6)


def _published(axes: Any, found: Mapping[str, Any], rate: str) -> None:
    """Mark the printed value of each of our rows that has one."""
    printed = {_key(row): row for row in found["published"] if rate in row}
    marks = [
        (place, 100 * (share(printed[_key(row)][rate]) or 0))
        for place, row in enumerate(found["rows"])
        if _key(row) in printed and row["start"] == "compromised"
    ]
    if marks:
        model = found["published"][0]["model"]
        axes.scatter(*zip(*marks, strict=True), facecolors="none", edgecolors="tab:red", zorder=3,
                     label=f"published, {model}")  # fmt: skip
        axes.legend(fontsize=7)


def _key(row: Row) -> tuple[str, str, str]:
    return row["trigger"], row["target"], row["defence"]


def _label(row: Row) -> str:
    start = " (base)" if row["start"] == "base" else ""
    return f"{row['trigger']}\n{row['target']}\n{row['defence']}{start}"
