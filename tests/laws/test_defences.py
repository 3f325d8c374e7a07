"""What every defence must promise, on a random model and a handful of samples."""

import io
import json
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from disp_engine import registry
from disp_engine.context import SilentContext
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.defences.defence import Outcome
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import AutoregressiveModel, VisualModel
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.success import ContainsAny
from disp_engine.records import Sample
from schemas.requests import METHOD_KINDS, AnyMethod
from tests.engine.causal_models import folder_of
from tests.engine.models import FIXTURE, picture

QUICK = {
    "epochs": 1, "batch_size": 4, "micro_batch": 4, "block_length": 4, "generation_length": 4,
}  # fmt: skip
EXTRA: dict[str, dict[str, Any]] = {
    "disp": {"probes": 2},
    "data_filtering": {"poisoned_ids": ["s1", "s3"]},
    "clean_subset": {"poisoned_ids": ["s1", "s3"], "clean_ratio": 0.5},
}
COUNT = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data")
    records = []
    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        for i in range(COUNT):
            png = io.BytesIO()
            picture(i, (20, 20)).save(png, "PNG")
            archive.writestr(f"{i}.png", png.getvalue())
            turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A."}]
            records.append({"id": f"s{i}", "image": f"{i}.png", "conversations": turns})
        archive.writestr("data.json", json.dumps(records))
    return read_dataset(folder / "data.zip", folder / "pool")


def folder_for(name: str) -> Path:
    """A model of the kind that the defence is for."""
    causal = registry.defence(name).needs[0] is AutoregressiveModel
    return folder_of("llava_1_5_siglip") if causal else FIXTURE


def defend(
    name: str, data: Dataset, root: Path, folder: Path | None = None, **settings: Any
) -> tuple[Outcome, VisualModel]:  # fmt: skip
    kind = registry.defence(name)
    model = registry.load_visual(folder or folder_for(name))
    resolved = kind.settings_type.resolve(QUICK | EXTRA.get(name, {}) | settings)
    sets = EvaluationSets(data, data, ContainsAny(("sorry",)))
    defence = kind(model, data, sets, resolved, 3, root, SilentContext())
    return defence.run(*defence.prepare()), model


@pytest.fixture(params=registry.DEFENCES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def root(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def outcome(name: str, data: Dataset, root: Path) -> Outcome:
    """What a first run comes to; its stages are kept in `root`."""
    return defend(name, data, root)[0]


def test_every_sample_is_accounted_for_once(outcome: Outcome, data: Dataset) -> None:
    parts = [
        list(outcome.rewritten), [s.id for s in outcome.kept], list(outcome.removed),
        list(outcome.quarantined), [s.id for s in outcome.passed_through],
    ]  # fmt: skip
    together = sorted(name for part in parts for name in part)
    assert together == sorted(s.id for s in data.samples), "law: each sample has one fate"


def test_kept_samples_are_as_they_came(outcome: Outcome, data: Dataset) -> None:
    known: dict[str, Sample] = {s.id: s for s in data.samples}
    assert all(sample == known[sample.id] for sample in outcome.kept), "law: kept is untouched"


def test_the_same_seed_leaves_the_same(
    name: str, outcome: Outcome, data: Dataset, tmp_path: Path
) -> None:
    second, _ = defend(name, data, tmp_path)
    assert outcome.hashes == second.hashes, "law: seeded"
    assert (outcome.before, outcome.after) == (second.before, second.after)


def test_kept_stages_give_the_same_again(
    name: str, outcome: Outcome, data: Dataset, root: Path
) -> None:
    second, _ = defend(name, data, root)
    assert outcome.hashes == second.hashes, "law: a reused run ends with the same projector"


def test_a_model_of_another_kind_is_refused_early(name: str, data: Dataset, tmp_path: Path) -> None:
    kind, _ = registry.defence(name).needs
    folders = {"diffusion": FIXTURE, "autoregressive": folder_of("llava_1_5_siglip")}
    for of_model, folder in folders.items():
        fits = isinstance(registry.load_visual(folder), kind)
        assert fits == (METHOD_KINDS.get(name, of_model) == of_model), "law: as the service says"
        if not fits:
            with pytest.raises(InvalidRequestError, match="method: "):
                defend(name, data, tmp_path, folder)


def test_an_unknown_setting_is_refused(name: str) -> None:
    kind = registry.defence(name)
    with pytest.raises(InvalidRequestError, match="unknown: nonsense"):
        kind.settings_type.resolve({"nonsense": 1})


def test_the_service_offers_every_setting_of_the_engine(name: str) -> None:
    needed = {k: v for k, v in EXTRA.get(name, {}).items() if k == "poisoned_ids"}
    given = {"type": name, "hyperparameters": needed}
    method: Any = TypeAdapter(AnyMethod).validate_python(given)
    offered = set(type(method.hyperparameters).model_fields)
    known = {field.name for field in fields(registry.defence(name).settings_type)}
    assert offered == known, "law: requests and settings agree"


def test_the_start_decides_where_the_repair_begins(data: Dataset, tmp_path: Path) -> None:
    compromised, _ = defend("random_drop", data, tmp_path, retrain_epochs=1)
    base, _ = defend("random_drop", data, tmp_path, retrain_epochs=1, start="base")
    assert base.hashes["compromised_projector"] == compromised.hashes["compromised_projector"]
    assert base.hashes["purified_projector"] != compromised.hashes["purified_projector"]


@pytest.mark.parametrize(("scope", "even"), [("global", False), ("layer", True)])
def test_pruning_zeroes_the_asked_share(
    data: Dataset, tmp_path: Path, scope: str, even: bool
) -> None:
    _, model = defend("pruning", data, tmp_path, prune_ratio=0.25, scope=scope)
    weights = [m.weight for m in model.projector.modules() if isinstance(m, torch.nn.Linear)]
    zeros = [int((w == 0).sum()) for w in weights]
    assert sum(zeros) == pytest.approx(0.25 * sum(w.numel() for w in weights), abs=len(weights))
    shares = [z / w.numel() for z, w in zip(zeros, weights, strict=True)]
    assert all(abs(share - 0.25) < 0.01 for share in shares) is even


def test_an_oracle_without_its_list_is_refused() -> None:
    kind = registry.defence("data_filtering")
    with pytest.raises(InvalidRequestError, match="poisoned_ids"):
        kind.settings_type.resolve({})


def test_filters_remove_what_they_say(data: Dataset, tmp_path: Path) -> None:
    filtered, _ = defend("data_filtering", data, tmp_path)
    assert set(filtered.removed) == {"s1", "s3"}
    subset, _ = defend("clean_subset", data, tmp_path)
    assert len(subset.kept) == 2 and not {s.id for s in subset.kept} & {"s1", "s3"}
    dropped, _ = defend("random_drop", data, tmp_path, drop_ratio=0.5)
    assert len(dropped.removed) == 3


@pytest.mark.parametrize("name", ["random_drop", "pruning", "data_filtering", "clean_subset"])
def test_what_is_of_no_kind_of_model_also_runs_on_autoregressive_ones(
    name: str, data: Dataset, tmp_path: Path
) -> None:
    found, _ = defend(name, data, tmp_path, folder_of("llava_1_5_siglip"))
    assert found.hashes["compromised_projector"] != found.hashes["base_projector"]
    assert found.after["clean_performance"]["scored"] == COUNT
