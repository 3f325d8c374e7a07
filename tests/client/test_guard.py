"""`disp guard` on a tiny random model."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from client import cli
from disp_engine import registry
from tests.engine.causal_models import causal_model, folder_of
from tests.engine.models import FIXTURE
from tests.engine.test_guarding import archive

Disp = Callable[..., int]
SHIPPED = registry.BUILTIN / "disp-tiny-llada-v"


@pytest.fixture
def disp(monkeypatch: pytest.MonkeyPatch) -> Disp:
    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["disp", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    archive(tmp_path / "data.zip", ["What?", "Who is that?", "Where?"], tmp_path / "pool")
    return tmp_path / "data.zip"


def test_a_calibrated_guard_is_evaluated_against_the_bare_model(
    disp: Disp, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = folder_of("llava_1_5"), tmp_path / "calibration.json"
    assert disp("guard", "calibrate", "--model", model, "--data", data, "--out", out) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["samples"], told["derived"]) == (3, False)
    words = ("--clean", data, "--triggered", data, "--phrase", "sorry", "--length", 4, "--batch", 2)
    assert disp(
        "guard", "evaluate", "--model", model, "--guard", "cleansight", "--calibration", out,
        "--json", tmp_path / "found.json", *words,
    ) == 0  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == json.loads(capsys.readouterr().out)
    assert found["asr_with_trigger"]["scored"] + found["asr_with_trigger"]["failed"] == 3
    assert found["undefended"]["clean_performance"]["scored"] == 3
    assert found["detection"]["auroc"] == 0.5, "both sets are the same"


def test_a_guard_can_be_given_options_and_another_projector(
    disp: Disp, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    projector = tmp_path / "projector.safetensors"
    causal_model("llava_1_5").save_projector(projector)
    assert disp(
        "guard", "evaluate", "--model", folder_of("llava_1_5"), "--projector", projector,
        "--option", "rows=last", "--option", "reference=none", "--clean", data, "--length", 4,
        "--limit", 1,
    ) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["options"] == {"rows": "last", "reference": "none"}
    assert found["clean_performance"]["scored"] == 1


@pytest.mark.parametrize("folder", [FIXTURE, SHIPPED], ids=["random", "shipped"])
def test_guards_of_a_masked_diffusion_model_are_labelled_derived(
    disp: Disp, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    model, out = ("--model", folder), tmp_path / "calibration.json"
    assert disp("guard", "calibrate", *model, "--data", data, "--out", out) == 0
    assert json.loads(capsys.readouterr().out)["derived"]
    assert json.loads(out.read_text())["derived"], "the file says it too"
    for words in (("cleansight", "--calibration", out), ("purmm", "--option", "rows=last")):
        assert disp(
            "guard", "evaluate", *model, "--guard", *words, "--clean", data, "--triggered", data,
            "--phrase", "sorry", "--length", 4, "--limit", 2,
        ) == 0  # fmt: skip
        found = json.loads(capsys.readouterr().out)
        assert found["derived"] and found["clean_performance"]["scored"] == 2
        assert found["undefended"]["clean_performance"]["scored"] == 2
    assert disp("guard", "serve", *model) == 3
    assert "autoregressive" in capsys.readouterr().err


def test_mistakes_are_refused_with_a_reason(
    disp: Disp, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", folder_of("llava_1_5"))
    assert disp("guard", "evaluate", *model) == 2
    assert disp("guard", "evaluate", *model, "--clean", data, "--option", "rows") == 2
    assert disp("guard", "evaluate", *model, "--clean", data, "--guard", "cleansight") == 3
    assert "needs calibration" in capsys.readouterr().err


def test_a_checkpoints_card_tells_the_guards_what_suits_it(
    disp: Disp, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", tmp_path / "calibration.json"
    shutil.copytree(folder_of("llava_1_5"), model)
    told = {"rows": "last", "contrast": 9.0, "first_layer": 0, "last_layer": 0, "learning_rate": 1}
    (model / "card.yaml").write_text(yaml.safe_dump({"defaults": told}))
    words = ("guard", "calibrate", "--model", model, "--data", data, "--out", out)
    assert disp(*words) == 0 and json.loads(out.read_text())["layers"] == [0]
    assert disp(*words, "--last-layer", 1) == 0 and json.loads(out.read_text())["layers"] == [0, 1]
    capsys.readouterr()
    assert disp("guard", "evaluate", "--model", model, "--clean", data, "--option", "contrast=4",
                "--length", 2) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["options"] == {"rows": "last", "contrast": 4}
