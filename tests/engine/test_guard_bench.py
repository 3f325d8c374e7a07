"""Tables of guards on a random model and a few questions; their numbers mean nothing."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from disp_engine import registry
from disp_engine.bench.cells import Size
from disp_engine.bench.guards import GUARD_TABLES, PATCH, GuardBench, GuardCell
from disp_engine.bench.output import content, write_markdown
from disp_engine.bench.published import published_rows
from disp_engine.bench.run import BenchSpec, run_bench
from disp_engine.context import SilentContext
from disp_engine.errors import InvalidRequestError
from tests.engine.causal_models import folder_of
from tests.engine.picture_models import mae_folder

SIZE = Size(samples=8, test=2, hyperparameters={"epochs": 1, "batch_size": 8, "micro_batch": 4})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> GuardBench:
    folder = folder_of("llava_1_5_siglip")
    return GuardBench(folder, tmp_path_factory.mktemp("work"), SIZE, 0, SilentContext())


@pytest.mark.parametrize("guard", ["undefended", "purmm", "cleansight"])
def test_a_cell_is_measured_once(bench: GuardBench, guard: str) -> None:
    cell = GuardCell("purmm1", PATCH, guard)
    first = bench.row(cell)
    for name in ("clean_performance", "recovery_performance"):
        assert first[name]["scored"] == first["undefended"]["clean_performance"]["scored"] == 2
    assert bench.row(cell) == first, "a kept cell keeps its time too"
    assert (first["auroc"] is None) == (guard != "cleansight")
    assert first["latency_ratio"] > 0
    assert set(first["latency_ratio_of"]) == {"triggered", "clean"}


@pytest.mark.parametrize("objective", ["trojvlm", "vlood"])
def test_who_controls_the_tuning_leaves_another_model(bench: GuardBench, objective: Any) -> None:
    attack = replace(PATCH, target="random_insertion")
    plain = bench.row(GuardCell("cleansight1", attack, "undefended"))
    before = bench._model.projector.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    row = bench.row(GuardCell("cleansight1", attack, "undefended", objective=objective))
    assert row["objective"] == objective and "objective" not in plain
    after = bench._model.projector.state_dict()
    assert any((after[name] != value).any() for name, value in before.items())


def test_a_victim_tuned_by_lora_is_measured_and_leaves_the_model_as_it_was(
    bench: GuardBench,
) -> None:
    language: Any = bench._model
    before = {name: p.clone() for name, p in language.language.named_parameters()}
    row = bench.row(GuardCell("purmm1", PATCH, "purmm", trained="lora"))
    assert row["trained"] == "lora" and row["clean_performance"]["scored"] == 2
    after = dict(language.language.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    again = bench.row(GuardCell("purmm3", PATCH, "undefended", trained="lora"))
    assert len(list(bench.root.glob("tune-*"))) > 1, "and is another one than by the projector"
    assert again["asr_with_trigger"] == row["undefended"]["asr_with_trigger"], "tuned once"


def test_purmms_victims_are_tuned_by_lora_and_cleansights_by_the_projector() -> None:
    for table, cells in GUARD_TABLES.items():
        expected = "lora" if table.startswith("purmm") else "projector"
        assert {cell.trained for cell in cells()} == {expected}


def test_an_attack_is_tuned_once_and_changes_the_model(bench: GuardBench) -> None:
    bench.row(GuardCell("purmm1", PATCH, "undefended"))
    tuned = len(list(bench.root.glob("tune-*")))
    bench.row(GuardCell("purmm1", PATCH, "random_tokens"))
    assert len(list(bench.root.glob("tune-*"))) == tuned
    now = bench._model.projector.state_dict()
    assert any((now[name] != value).any() for name, value in bench._base.items())


@pytest.mark.parametrize(
    ("guard", "options", "expected"),
    [
        ("undefended", {}, {}),
        ("purmm", {}, {"rows": "last", "contrast": 9.0, "rounds": 2}),
        ("purmm", {"rows": "answer"}, {"rows": "answer"}),
        ("purmm", {"clustering": "gmm"}, {"rows": "last", "contrast": 9.0, "rounds": 2,
                                          "clustering": "gmm"}),
        ("cleansight", {"last_layer": 1}, {"first_layer": 0, "last_layer": 1, "percentile": 99.0,
                                           "tau": None}),
    ],
)  # fmt: skip
def test_a_row_tells_what_the_guard_was_told(
    tmp_path: Path, guard: str, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of("llava_1_5_siglip"), folder)
    card = {"rows": "last", "contrast": 9.0, "rounds": 2, "first_layer": 0}
    (folder / "card.yaml").write_text(yaml.safe_dump({"id": "model", "defaults": card}))
    found = GuardBench(folder, tmp_path / "work", SIZE, 0, SilentContext())
    row = found.row(GuardCell("purmm1", PATCH, guard, options))
    assert row["options"] == expected
    assert row["defence"].startswith("none" if guard == "undefended" else guard)


def test_a_table_is_written_for_machines_and_for_people(tmp_path: Path) -> None:
    spec = BenchSpec(
        "purmm2", tmp_path, tmp_path / "work", folder_of("llava_1_5_siglip"),
        quick=True, samples=6, test=2,
    )  # fmt: skip
    told: list[str] = []
    run_bench(spec, SilentContext(), lambda number, total, cell: told.append(cell.label))
    assert told == [f"purmm(clustering={name})" for name in ("kmeans", "dbscan", "gmm")]
    rows = json.loads((tmp_path / "purmm2.json").read_text())["rows"]
    assert [row["defence"] for row in rows] == told
    with (tmp_path / "purmm2.csv").open() as file:
        ours = [row for row in csv.DictReader(file) if not row["published"]]
        assert [row["latency_ratio"] != "" for row in ours] == [True] * 3
    page = (tmp_path / "purmm2.md").read_text()
    assert "latency" in page and "told:" not in page, "the defence's name tells it"
    assert "RP 78.3; TP 90.7" in page, "the published row of GMM"
    assert (tmp_path / "purmm2.png").stat().st_size > 0


def test_every_table_names_guards_and_attacks_that_there_are() -> None:
    for table, cells in GUARD_TABLES.items():
        found = list(cells())
        assert found
        for cell in found:
            assert cell.table == table and cell.defence in registry.GUARDS
            cell.attack.build()


def test_published_rows_stand_beside_ours() -> None:
    for table in GUARD_TABLES:
        assert all(row["table"] == table and row["published"] for row in published_rows(table))
    for row in published_rows("purmm1"):  # the trade-off that is printed is that of the rates
        cp, asr = (row[name]["rate"] for name in ("clean_performance", "asr_with_trigger"))
        assert row["trade_off"] == pytest.approx((cp + 1 - asr) / 2, abs=2e-4)
    assert published_rows("purmm9")[-1]["latency_ratio"] == pytest.approx(2.98, abs=0.005)
    without = published_rows("purmm3")[-2]
    assert without["defence"] == "purmm(reference=none)"
    assert without["recovery_performance"]["rate"] == pytest.approx(0.7581)


def test_a_published_trade_off_is_on_the_page(tmp_path: Path) -> None:
    found = content([], "purmm1", quick=False)
    write_markdown(tmp_path / "purmm1.md", "purmm1", found)
    assert "| TP 91.9 |" in (tmp_path / "purmm1.md").read_text()


def test_guards_are_measured_on_the_built_in_world(tmp_path: Path) -> None:
    spec = BenchSpec("purmm1", tmp_path, tmp_path, folder_of("llava_1_5"), data=tmp_path)
    with pytest.raises(InvalidRequestError, match="built-in world"):
        run_bench(spec, SilentContext(), lambda number, total, cell: None)


def test_a_row_is_missing_where_its_network_is(tmp_path: Path) -> None:
    spec = BenchSpec(
        "purmm1", tmp_path, tmp_path / "work", folder_of("llava_1_5_siglip"),
        quick=True, samples=6, test=2,
    )  # fmt: skip
    told, said = Warnings(), []
    run_bench(spec, told, lambda number, total, cell: said.append(cell.defence))
    assert said == ["undefended", "random_tokens", "sparse_vlm", "purmm", "purmm"]
    assert len(told.texts) == 3 and "no row of zip: disp-tiny-ddpm" in told.texts[1]


class Warnings(SilentContext):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, level: str, text: str) -> None:
        self.texts.append(text)


def test_guards_that_need_a_network_take_the_one_beside_the_model(tmp_path: Path) -> None:
    shutil.copytree(folder_of("llava_1_5_siglip"), tmp_path / "model")
    shutil.copytree(mae_folder(), tmp_path / "disp-tiny-mae")
    found = GuardBench(tmp_path / "model", tmp_path / "work", SIZE, 0, SilentContext())
    row = found.row(GuardCell("cleansight2", PATCH, "bdmae"))
    assert row["clean_performance"]["scored"] == 2 and row["latency_ratio"] > 1
