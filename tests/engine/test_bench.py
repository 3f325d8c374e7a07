"""The benchmark's machinery on a random model and a few samples; its numbers mean nothing."""

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from disp_engine.attacks.settings import AttackSettings
from disp_engine.bench import tables
from disp_engine.bench.cells import DEFENCES, Cell, Size
from disp_engine.bench.detection import touched
from disp_engine.bench.output import content, write_csv, write_markdown
from disp_engine.bench.plots import plot
from disp_engine.bench.published import published_rows, published_statement
from disp_engine.bench.rows import full_rows
from disp_engine.bench.run import BenchSpec, run_bench
from disp_engine.bench.summaries import summary
from disp_engine.bench.verdicts import verdict_rows
from disp_engine.bench.workbench import Workbench
from disp_engine.context import SilentContext
from disp_engine.errors import Aborted, InvalidRequestError
from disp_engine.metrics.rate import Rate
from disp_engine.registry import DETECTORS
from tests.engine.models import FIXTURE

SIZE = Size(
    samples=10,
    test=3,
    hyperparameters={"epochs": 1, "retrain_epochs": 1, "batch_size": 10, "micro_batch": 10,
                     "block_length": 4, "generation_length": 4, "probes": 2},
)  # fmt: skip
ATTACK = AttackSettings(target="content_insertion")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(FIXTURE, tmp_path_factory.mktemp("work"), SIZE, 0, SilentContext())


@pytest.mark.parametrize("defence", ["clean", "none", "clean_subset", "data_filtering", "disp"])
def test_a_cell_is_measured_once(bench: Workbench, defence: str) -> None:
    cell = Cell("any", ATTACK, defence)
    first = bench.row(cell)
    assert first["asr_with_trigger"]["scored"] + first["asr_with_trigger"]["failed"] == 3
    assert bench.row(cell) == first, "a kept cell keeps its time too"
    assert bench.row(replace(cell, table="other")) == first, "a table's name measures nothing"


def test_an_oracle_filter_is_perfect(bench: Workbench) -> None:
    found = bench.row(Cell("any", ATTACK, "data_filtering"))["filter"]
    assert found["precision"]["successes"] == found["recall"]["successes"] == 2
    assert found["f1"] == 1


def test_masking_nothing_at_inference_changes_nothing(bench: Workbench) -> None:
    plain = bench.row(Cell("any", ATTACK, "none"))
    masked = bench.row(Cell("any", ATTACK, "none", mask_ratio=0.0))
    assert masked["clean_performance"] == plain["clean_performance"]
    assert masked["token_agreement"] == plain["token_agreement"]


@pytest.mark.parametrize("objective", ["trojvlm", "vlood"])
def test_a_training_side_attack_leaves_another_model(bench: Workbench, objective: Any) -> None:
    attack = AttackSettings(target="random_insertion")
    row = bench.row(Cell("any", attack, "none", objective=objective))
    assert row["asr_with_trigger"]["scored"] + row["asr_with_trigger"]["failed"] == 3


def test_a_dual_trigger_is_run_in_its_parts(bench: Workbench) -> None:
    attack = replace(ATTACK, text_trigger="word", mode="or")
    found = bench.row(Cell("any", attack, "none", measure="modality"))["modality"]
    if found["items"]:
        asr = found["asr"]
        total = asr["means"]["both"] - asr["means"]["none"]
        assert abs(asr["phi_image"]["value"] + asr["phi_text"]["value"] - total) < 1e-12


def test_kinds_of_questions_are_measured_apart(bench: Workbench) -> None:
    found = bench.row(Cell("any", ATTACK, "none", measure="kinds"))["kinds"]
    assert set(found) == {"captions", "objects", "colours", "grounds", "counts"}


def one_cell() -> Iterable[Cell]:
    yield Cell("table3", ATTACK, "none")
    yield Cell("table3", ATTACK, "random_drop")


def spec(folder: Path) -> BenchSpec:
    return BenchSpec("table3", folder / "out", folder / "work", FIXTURE, None, True, 10, 3)


def test_a_stopped_table_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tables.TABLES, "table3", one_cell)  # type: ignore[arg-type]

    class Stopping(SilentContext):
        def should_abort(self) -> bool:
            return (tmp_path / "out" / "table3.json").exists()

    with pytest.raises(Aborted):
        run_bench(spec(tmp_path), Stopping(), lambda *_: None)
    partial = json.loads((tmp_path / "out" / "table3.json").read_bytes())
    assert [row["defence"] for row in partial["rows"]] == ["none"]
    found = run_bench(spec(tmp_path), SilentContext(), lambda *_: None)
    assert [row["defence"] for row in found["rows"]] == ["none", "random_drop"]
    assert found["rows"][0] == partial["rows"][0]
    assert (tmp_path / "out" / "table3.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    wrong = replace(spec(tmp_path), table="table9")
    with pytest.raises(InvalidRequestError, match="table9"):
        run_bench(wrong, SilentContext(), lambda *_: None)


def measured(asr: int, right: int) -> dict[str, Any]:
    rates = {
        "asr_with_trigger": Rate(asr, 200), "asr_without_trigger": Rate(0, 200),
        "clean_performance": Rate(right, 200), "robust_performance": Rate(100, 200),
        "token_agreement": Rate(900, 1000),
    }  # fmt: skip
    row = {name: rate.to_json() for name, rate in rates.items()}
    return {**row, "before": row, "cider": 9.0, "seconds": 1.5}


def rows() -> list[dict[str, Any]]:
    attack = AttackSettings(target="content_insertion")
    cells = [Cell("table3", attack, name) for name in ("clean", "none", "disp")]
    found = [measured(0, 190), measured(190, 180), measured(2, 171)]
    return full_rows(cells, found, "disp-tiny-llada-v", 0)


def test_relative_performance_is_that_of_the_undefended_row() -> None:
    clean, none, disp = rows()
    assert (none["relative_clean_performance"], disp["relative_clean_performance"]) == (1, 0.95)
    assert clean["relative_clean_performance"] == pytest.approx(190 / 180)
    assert clean["poisoning_rate"] == 0
    # DER = (0.95 - 0.01 - 0.045 + 1) / 2
    assert disp["defence_effectiveness"] == pytest.approx((0.94 - 0.045 + 1) / 2)


REQUIRED = {
    "table", "model", "trigger", "target", "poisoning_rate", "defence", "start", "seed",
    "asr_with_trigger", "asr_without_trigger", "clean_performance", "relative_clean_performance",
    "seconds",
}  # fmt: skip


def test_files_hold_our_rows_and_the_published_ones(tmp_path: Path) -> None:
    found = content(rows(), "table3", quick=False)
    assert set(found["rows"][0]) >= REQUIRED
    write_csv(tmp_path / "t.csv", found)
    write_markdown(tmp_path / "t.md", "table3", found)
    plot(tmp_path / "t.png", "table3", found)
    lines = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [line["published"] for line in lines] == [""] * 3 + ["True"] * 8
    assert lines[2]["asr_with_trigger.successes"] == "2"
    page = (tmp_path / "t.md").read_text()
    assert "| LLaDA-V (*published*) | black_patch | content_insertion |" in page
    assert "1.0 (2/200, 0.3–3.6)" in page


def test_published_numbers_are_those_of_the_paper() -> None:
    (row,) = (
        r for r in published_rows("table1")
        if (r["target"], r["defence"]) == ("content_insertion", "disp")
    )  # fmt: skip
    assert row["asr_with_trigger"]["rate"] == pytest.approx(0.005)
    assert row["clean_performance"]["rate"] == pytest.approx(0.4922)
    assert row["published"] and row["model"] == "LLaDA-V"
    rates = {r["target"]: r["poisoning_rate"] for r in published_rows("table2")}
    assert rates["misclassification"] == 0.4 and rates["targeted_refusal"] == 0.2
    averages = {
        (r["target"], r["defence"]): sum(r["kinds"].values()) / 6 for r in published_rows("table4")
    }
    # the averages that the paper prints beside the columns
    assert averages["content_insertion", "disp"] == pytest.approx(0.6060, abs=1e-4)
    assert averages["targeted_refusal", "none"] == pytest.approx(0.6043, abs=1e-4)
    assert "89 to 91" in str(published_statement("figure2"))


def test_every_cell_names_an_attack_and_a_defence_that_exist() -> None:
    for table, cells in tables.TABLES.items():
        listed = list(cells())
        assert listed and len(listed) == len(set(map(repr, listed))), table
        for cell in listed:
            cell.attack.build()
            assert cell.table == table
            assert cell.defence in ("clean", "none", *DEFENCES)


def test_detection_is_measured_against_what_was_poisoned(bench: Workbench) -> None:
    row = bench.row(Cell("detection", ATTACK, "disp", measure="detection"))
    found = row["detection"]
    assert set(found["areas"]) == {*DETECTORS, "shared_look"}, (
        "every detector's need is met in a DiSP run"
    )
    assert all(area is None or 0 <= area <= 1 for area in found["areas"].values())
    assert found["flags"]["recall"]["scored"] == 2
    clean = bench.row(Cell("any", replace(ATTACK, rate=0.0), "disp", measure="detection", draw=3))
    assert clean["detection"]["auroc"] is None and not clean["detection"]["poisoned"]
    assert found["asr"] == row["before"]["asr_with_trigger"] and 0 <= found["iou"] <= 1


def test_a_verdict_without_tuning_is_the_verdict_of_a_whole_run(bench: Workbench) -> None:
    whole = bench.row(Cell("detection", ATTACK, "disp", measure="detection"))["detection"]
    bare = bench.row(Cell("detection", ATTACK, "disp", measure="verdict"))["detection"]
    told = ("poisoned", "p_value", "auroc", "flagged", "scored", "flags")
    assert {name: bare[name] for name in told} == {name: whole[name] for name in told}


def test_tables_that_ask_one_question_are_summed_up() -> None:
    def row(trigger: str, rate: float, area: float | None, poisoned: bool) -> dict[str, Any]:
        found = {"auroc": area, "poisoned": poisoned}
        return {"trigger": trigger, "target": "t", "poisoning_rate": rate, "detection": found}

    rows = [
        row("black_patch", 0.1, 1.0, True), row("noise_patch", 0.02, 0.9, False),
        row("wanet", 0.01, 0.5, False), row("word", 0.2, None, True),
    ]  # fmt: skip
    told = summary("detection", rows)
    assert told["verdicts"]["successes"] == 2 and told["verdicts"]["scored"] == 3
    assert (told["auroc"]["local"]["least"], told["auroc"]["local"]["datasets"]) == (0.9, 2)
    assert told["auroc"]["local"]["of"]["trigger"] == "noise_patch"
    assert told["auroc"]["global"]["least"] == 0.5 and told["auroc"]["text"]["least"] is None
    assert summary("table1", rows) == {}


@pytest.mark.parametrize(
    ("iou", "own", "located", "close"),
    [(0.5, 0.95, 1, 1), (None, None, 0, 0), (0.4, 0.94, 0, 0)],
)
def test_a_recovered_trigger_is_held_against_the_true_one(
    iou: float | None, own: float | None, located: int, close: int
) -> None:
    recovered = None if own is None else {"before": {"asr": {"rate": own}}}
    row = {"detection": {"iou": iou, "recovered": recovered, "asr": {"rate": 1.0}}}
    told = summary("recovery", [row])
    assert told["located"]["successes"] == located
    assert told["recovered_asr_close"]["successes"] == close


def test_a_place_is_told_in_tokens() -> None:
    places = torch.tensor(
        [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1], [math.nan] * 4]
    )
    assert touched((0.25, 0.25, 0.75, 0.75), places).tolist() == [True, True, True, True, False]
    assert touched((0.0, 0.0, 0.55, 0.5), places).tolist() == [True, False, False, False, False]


def test_false_alarms_are_counted_without_any_tuning(tmp_path: Path) -> None:
    bench = Workbench(FIXTURE, tmp_path / "work", SIZE, 0, SilentContext())
    cells = list(tables.TABLES["false_alarms"]())
    assert len(cells) == 100
    found = [bench.row(cell) for cell in cells[:2]]
    assert not list(bench.root.glob("tune-*")), "the base model decides"
    rows = verdict_rows(cells[:2], found, "tiny", 0)
    told = content(rows, "false_alarms", quick=False) | summary("false_alarms", rows)
    assert told["false_alarms"]["scored"] == 2
    write_csv(tmp_path / "t.csv", told)
    write_markdown(tmp_path / "t.md", "false_alarms", told)
    assert "verdict " in (tmp_path / "t.md").read_text()
