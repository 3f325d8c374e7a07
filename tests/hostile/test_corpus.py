"""Every hostile archive and checkpoint against its reader alone.

`tests/e2e/test_hostile.py` has the service.
"""

from collections import Counter
from pathlib import Path

import pytest

from disp_engine.data.dataset import read_dataset
from disp_engine.errors import EngineError
from disp_engine.registry import load_model
from tests.hostile.corpus import DATA, INPUTS
from tests.hostile.inputs import DataInput
from tests.hostile.tars import tar
from tests.hostile.weights import WEIGHTS_INPUTS, copied
from tests.hostile.zips import good_zip

SLOW = {
    "zip_bomb_by_ratio", "zip_bomb_by_sum", "zip_bomb_by_count", "zip_overlapping",
    "tar_gzipped_bomb", "image_text_bomb", "image_profile_bomb", "data_million_of_records",
    "data_brackets_of_megabytes", "data_sixty_megabytes", "image_international_text_bomb",
}  # fmt: skip
"""Those that take seconds to make or to read; `python -m tests.hostile` puts them, too."""


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(INPUTS) >= 300
    assert Counter(given.name for given in INPUTS).most_common(1)[0][1] == 1
    assert {given.name for given in DATA} >= SLOW


@pytest.mark.parametrize("make", [good_zip, tar])
def test_what_the_hostile_archives_are_made_of_is_sound(make, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(make())
    assert len(read_dataset(tmp_path / "data", tmp_path / "pool", "strict").samples) == 1


@pytest.mark.parametrize("given", [g for g in DATA if g.name not in SLOW], ids=lambda g: g.name)
def test_a_hostile_archive_is_refused_with_its_code(given: DataInput, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(given.make())
    with pytest.raises(EngineError) as refused:
        read_dataset(tmp_path / "data", tmp_path / "pool", given.validation)  # type: ignore[arg-type]
    assert refused.value.code == given.code
    assert list(tmp_path.glob("pool/.draft*")) == []


@pytest.mark.parametrize("given", WEIGHTS_INPUTS, ids=lambda given: given.name)
def test_a_hostile_checkpoint_is_refused_with_its_code(given: DataInput, tmp_path: Path) -> None:
    assert given.model is not None
    with pytest.raises(EngineError) as refused:
        load_model(copied(tmp_path / "model", given.model))
    assert refused.value.code == given.code
