"""Renders the report as one page that needs nothing beside it."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

MEASURES = {
    "asr_with_trigger": "ASR with trigger",
    "asr_without_trigger": "ASR without trigger",
    "clean_performance": "Clean performance (exact match)",
    "token_agreement": "Token agreement",
}


def percent(rate: Mapping[str, Any] | None) -> str:
    """A rate with its counts and interval, or why there is none."""
    if rate is None:
        return "not measured"
    failed = f", {rate['failed']} failed" if rate["failed"] else ""
    if rate["rate"] is None:
        return f"nothing scored{failed}"
    low, high = (100 * bound for bound in rate["ci95"])
    counts = f"{rate['successes']}/{rate['scored']}"
    return f"{100 * rate['rate']:.1f} % ({counts}, 95 % CI {low:.1f}–{high:.1f}{failed})"


def write_page(report: Mapping[str, Any], path: Path) -> None:
    """Write the self-contained HTML page; all texts are escaped.

    The recovered pattern is taken from `trigger.png` beside it, if there is one.
    """
    pattern = path.with_name("trigger.png")
    trigger = base64.b64encode(pattern.read_bytes()).decode() if pattern.exists() else None
    environment = Environment(
        loader=PackageLoader("disp_engine.report"), autoescape=True, trim_blocks=True
    )
    environment.filters["percent"] = percent
    page = environment.get_template("report.html").render(
        report=report, measures=MEASURES, trigger=trigger
    )
    path.write_text(page, encoding="utf-8")
