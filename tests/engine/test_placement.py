"""A model spread over devices, with the host in the place of each of them."""

import pytest
import torch

from disp_engine.interfaces import Generation
from disp_engine.models.llada_v import LladaV
from disp_engine.models.llada_v.config import LladaVConfig
from disp_engine.models.llava.model import Modules
from disp_engine.models.llava.placement import Placement
from disp_engine.records import Embedded, Turn
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency
from tests.engine.models import FIXTURE, picture, random_llada_v

GPU = torch.device("cuda", 0), torch.device("cuda", 1)


def spread(budgets: dict[int | str, int]) -> Placement:
    language = Modules.empty(LladaVConfig.from_folder(FIXTURE)).language
    return Placement.spread(language, torch.float32, budgets)


def test_layers_fill_one_device_after_the_other_and_are_never_split() -> None:
    language = Modules.empty(LladaVConfig.from_folder(FIXTURE)).language
    layer = 4 * sum(value.numel() for value in language.layers[0].parameters())
    words = 4 * language.embed_tokens.weight.numel()
    placed = spread({0: words + 3 * layer, 1: 100 * layer})
    assert placed.first == GPU[0]
    by_layer = [
        {placed.of(f"model.layers.{n}.{name}") for name, _ in language.layers[n].named_parameters()}
        for n in range(len(language.layers))
    ]
    assert all(len(devices) == 1 for devices in by_layer)
    order = [devices.pop().index for devices in by_layer]
    assert order == sorted(order) and order[0] == 0 and order[-1] == 1
    assert placed.of("lm_head.weight") == placed.of("model.norm.weight") == GPU[1]
    for beside in ("model.mm_projector.0.weight", "model.image_newline"):
        assert placed.of(beside) == GPU[0]


def test_one_device_takes_everything() -> None:
    placed = Placement.on("cpu")
    assert placed.of("lm_head.weight") == placed.first == torch.device("cpu")


@pytest.fixture(scope="module")
def dispatched() -> LladaV:
    """The model with the hooks that move what passes, every device being the host."""
    model = LladaV.from_folder(FIXTURE)
    parts = ("embed_tokens", "norm", "lm_head", "rotary_emb")
    layers = [f"layers.{n}" for n in range(model.depth)]
    host = torch.device("cpu")
    placed = Placement({"": host, **dict.fromkeys([*parts, *layers], host)})
    placed.settle(model.language, model.tower)
    return model


def asked(model: LladaV) -> Embedded:
    tokens = model.tokenise_prompt([Turn("human", "<image>\nWhat?")])
    with torch.no_grad():
        return model.embed(tokens, model.encode_images([picture(0)]))


def test_what_passes_between_devices_is_what_it_was(dispatched: LladaV) -> None:
    assert all(hasattr(layer, "_hf_hook") for layer in dispatched.language.layers)
    plain, few = random_llada_v(), Generation(8, 4, 8, stop=())
    (here,), (there,) = (m.denoise([asked(m)], few) for m in (plain, dispatched))
    assert here.tolist() == there.tolist()
    settings = SaliencySettings(rows=4, length=4)
    (one,), (other,) = (estimate_saliency(m, [asked(m)], settings) for m in (plain, dispatched))
    torch.testing.assert_close(one.scores, other.scores)
    prompt, rows = asked(plain).embeddings[None], torch.tensor([[3, 4]])
    torch.testing.assert_close(
        plain.attention_rows(prompt, rows, [0, 2]), dispatched.attention_rows(prompt, rows, [0, 2])
    )
