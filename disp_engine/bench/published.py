"""The papers' printed numbers as rows beside ours."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from disp_engine.bench.tables import TARGETS

FILE = Path(__file__).with_name("published.yaml")


def published_rows(table: str) -> list[dict[str, Any]]:
    """Rows of a table as printed, as shares; each names its model and says that it is published."""
    content = yaml.safe_load(FILE.read_text())
    if table in ("table1", "table2"):
        found = _by_target(content[table])
    elif table == "table3":
        found = _by_trigger(content[table])
    elif table == "table4":
        found = _by_benchmark(content[table])
    else:
        return []
    mark = {"published": True, "source": content["source"], "table": table,
            "model": content[table]["model"]}  # fmt: skip
    return [mark | row for row in found]


def published_statement(table: str) -> str | None:
    """What a paper says in words where it prints no numbers."""
    statement: str | None = yaml.safe_load(FILE.read_text())["statements"].get(table)
    return statement


def _by_target(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for target in TARGETS:
        rate = content.get("poisoning_rate_of", {}).get(target, content["poisoning_rate"])
        for defence, printed in content[target].items():
            yield {"trigger": content["trigger"], "target": target, "poisoning_rate": rate,
                   "defence": defence} | _rates(printed, content[target]["none"])  # fmt: skip


def _by_trigger(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for trigger, rows in content.items():
        if not isinstance(rows, dict):
            continue
        for defence, printed in rows.items():
            yield {"trigger": trigger, "target": content["target"],
                   "poisoning_rate": content["poisoning_rate"],
                   "defence": defence} | _rates(printed, rows["none"])  # fmt: skip


def _by_benchmark(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for target in TARGETS:
        for defence, printed in ({"clean": content["clean"]} | content[target]).items():
            shares = [value / 100 for value in printed]
            kinds = dict(zip(content["benchmarks"], shares, strict=True))
            yield {"trigger": "black_patch", "target": target, "poisoning_rate": 0.2,
                   "defence": defence, "kinds": kinds}  # fmt: skip


def _rates(printed: list[float], undefended: list[float]) -> dict[str, Any]:
    performance, without, with_trigger = (value / 100 for value in printed)
    return {
        "asr_with_trigger": {"rate": with_trigger},
        "asr_without_trigger": {"rate": without},
        "clean_performance": {"rate": performance},
        "relative_clean_performance": performance / (undefended[0] / 100),
    }
