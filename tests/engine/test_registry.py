"""Families that other packages add."""

import json
from pathlib import Path

import pytest

from disp_engine import registry
from disp_engine.errors import InvalidModelError
from disp_engine.models.llada_v import LladaV

CARD = """\
- id: someone/else
  family: ElsewhereLM
  defaults:
    mask_ratio: 0.25
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that adds `ElsewhereLM`, and would like to replace LLaDA-V."""
    package = tmp_path / "site" / "elsewhere"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from disp_engine.models.llada_v import LladaV\n\n\nclass Elsewhere(LladaV):\n    pass\n"
    )
    (package / "cards.yaml").write_text(CARD)
    facts = tmp_path / "site" / "elsewhere-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    lines = ("ElsewhereLM = elsewhere:Elsewhere", "LlavaLLaDAModelLM = elsewhere:Elsewhere")
    (facts / "entry_points.txt").write_text("\n".join(["[disp.model_families]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


def config(folder: Path, architecture: str) -> Path:
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return folder


def test_a_package_adds_a_family_with_its_card(elsewhere: Path) -> None:
    folder = config(elsewhere, "ElsewhereLM")
    found = registry.family(folder)
    assert found.__name__ == "Elsewhere" and issubclass(found, LladaV)
    assert registry.card_defaults(folder) == {"mask_ratio": 0.25}


def test_a_package_replaces_no_family_of_ours(elsewhere: Path) -> None:
    assert registry.family(config(elsewhere, "LlavaLLaDAModelLM")) is LladaV


def test_a_family_that_nobody_adds_is_refused_and_the_others_named(elsewhere: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"NobodyLM.*known: .*ElsewhereLM"):
        registry.family(config(elsewhere, "NobodyLM"))
