"""The papers' printed numbers as rows beside ours."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from disp_engine.bench.tables import TARGETS

FILE = Path(__file__).with_name("published.yaml")
GUARDS_FILE = Path(__file__).with_name("published_guards.yaml")
RATES = {"cp": "clean_performance", "asr": "asr_with_trigger", "rp": "recovery_performance"}
"""Columns of tables of guards that are rates; `tp` and `seconds` are numbers."""


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
        return list(_of_guards(table))
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


def _of_guards(table: str) -> Iterator[dict[str, Any]]:
    """Rows of a table of guards; where times are printed, with their ratio to the first row's."""
    content = yaml.safe_load(GUARDS_FILE.read_text()).get(table, {"rows": []})
    common = {key: value for key, value in content.items() if key not in ("columns", "rows")}
    first: dict[str, float] = {}
    for row in content["rows"]:
        told = dict(zip(content["columns"], row["printed"], strict=True))
        first = first or told
        found = {name: {"rate": told[column] / 100} for column, name in RATES.items()
                 if column in told}  # fmt: skip
        if "tp" in told:
            found["trade_off"] = told["tp"] / 100
        if "seconds" in told:
            found["seconds"] = told["seconds"]
            found["latency_ratio"] = told["seconds"] / first["seconds"]
        rest = {key: value for key, value in row.items() if key != "printed"}
        yield {"published": True, "table": table} | common | rest | found


def _rates(printed: list[float], undefended: list[float]) -> dict[str, Any]:
    performance, without, with_trigger = (value / 100 for value in printed)
    return {
        "asr_with_trigger": {"rate": with_trigger},
        "asr_without_trigger": {"rate": without},
        "clean_performance": {"rate": performance},
        "relative_clean_performance": performance / (undefended[0] / 100),
    }
