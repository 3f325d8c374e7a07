"""LoRA on random tiny models: what it changes, by hand, and that it leaves nothing behind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disp_engine import registry
from disp_engine.context import SilentContext
from disp_engine.errors import Aborted
from disp_engine.interfaces import AdaptableModel
from disp_engine.records import IGNORE, Embedded, Turn
from disp_engine.stages import Stage
from disp_engine.training.lora import Adapted, LoraSettings, adapted
from disp_engine.training.settings import FineTuning
from disp_engine.training.state import FILE, restore_parameters
from disp_engine.training.trainer import fine_tune
from tests.engine.causal_models import causal_model, folder_of
from tests.engine.models import MASKED, masked_model
from tests.engine.test_trainer import StopAt

SETTINGS = LoraSettings(rank=2, alpha=6, learning_rate=0.01)
CAUSAL = ("llava_1_5", "qwen2_vl")


@pytest.fixture(params=[*CAUSAL, *MASKED])
def model(request: pytest.FixtureRequest) -> Any:
    name = request.param
    return masked_model(name) if name in MASKED else causal_model(name)


def inputs(model: Any) -> Tensor:
    width = model.language.embed_tokens.weight.shape[1]
    return torch.randn(2, 5, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def hidden(model: Any) -> Tensor:
    if hasattr(model, "denoise"):
        return model.language(inputs(model))
    return model.language(inputs_embeds=inputs(model)).last_hidden_state


def state(model: Any) -> dict[str, Any]:
    """All that there is of a language model and its projector, besides what they compute."""
    found: dict[str, Any] = {}
    for part in (model.language, model.projector):
        for name, module in part.named_modules():
            hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
            found[f"{id(part)} {name}"] = (type(module), id(module), *map(len, hooks))
        for name, parameter in part.named_parameters():
            value = parameter.detach().clone()
            found[f"{id(part)} {name} weight"] = (id(parameter), parameter.requires_grad, value)
    return found


def same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return before.keys() == after.keys() and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for name in before
        for a, b in zip(before[name], after[name], strict=True)
    )


def stir(parameters: Adapted) -> None:
    with torch.no_grad():
        for parameter in parameters.adapters.parameters():
            parameter.fill_(0.1)


def test_nothing_is_left_of_adapters_also_after_an_error(model: Any) -> None:
    assert isinstance(model, AdaptableModel)
    before, plain = state(model), hidden(model)
    with pytest.raises(RuntimeError, match="broke off"), adapted(model, SETTINGS, 0) as parameters:
        stir(parameters)
        assert not torch.allclose(hidden(model), plain), "meanwhile they count"
        raise RuntimeError("it broke off")
    assert same(before, state(model)), "law: bit for bit as it was"
    assert torch.equal(hidden(model), plain)
    assert not hasattr(model.language, "peft_config")


def test_fresh_adapters_change_nothing_and_are_drawn_from_the_seed(model: Any) -> None:
    plain, drawn = hidden(model), torch.get_rng_state()
    found = []
    for seed in (0, 0, 1):
        with adapted(model, SETTINGS, seed) as parameters:
            torch.testing.assert_close(hidden(model), plain, atol=0, rtol=0)
            found.append([p.detach().clone() for p in parameters.adapters.parameters()])
    assert torch.equal(torch.get_rng_state(), drawn), "nobody else's draws are touched"
    assert all(map(torch.equal, found[0], found[1]))
    assert not all(map(torch.equal, found[0], found[2]))


def test_every_linear_layer_of_every_block_has_one_and_nothing_else_learns(model: Any) -> None:
    linear = [
        name for name, module in model.language.named_modules()
        if isinstance(module, nn.Linear) and "lm_head" not in name
    ]  # fmt: skip
    with adapted(model, SETTINGS, 0) as parameters:
        names = {name.partition("/lora_")[0] for name in parameters.adapters}
        assert names == {name.replace(".", "/") for name in linear} and len(linear) == 3 * 7
        learning = {id(p) for p in model.language.parameters() if p.requires_grad}
        assert learning == {id(p) for p in parameters.adapters.parameters()}
        assert all(p.requires_grad for p in parameters.parameters())
        assert {id(p) for p in model.projector.parameters()} <= {
            id(p) for p in parameters.parameters()
        }


def test_an_adapter_adds_alpha_over_rank_times_its_product() -> None:
    """y = W x + (6 / 2) B A x."""
    model: Any = causal_model("llava_1_5")
    layer = model.language.layers[1].mlp.up_proj
    x = inputs(model)
    a = torch.arange(2 * layer.in_features).reshape(2, -1) / 100
    b = torch.arange(2 * layer.out_features).reshape(-1, 2) / 100
    expected = x @ layer.weight.T + 3.0 * (x @ a.T @ b.T)
    with adapted(model, SETTINGS, 0) as parameters, torch.no_grad():
        at = "layers/1/mlp/up_proj/lora_{}/default/weight"
        parameters.adapters[at.format("A")].copy_(a)
        parameters.adapters[at.format("B")].copy_(b)
        torch.testing.assert_close(model.language.layers[1].mlp.up_proj(x), expected)


def test_adapters_of_half_precision_models_learn_in_full_precision() -> None:
    model: Any = registry.load_autoregressive(folder_of("llava_1_5"), dtype=torch.bfloat16)
    with adapted(model, SETTINGS, 0) as parameters:
        assert {p.dtype for p in parameters.parameters()} == {torch.float32}
        assert hidden_half(model).dtype == torch.bfloat16


@torch.no_grad()
def hidden_half(model: Any) -> Tensor:
    return model.language(inputs_embeds=inputs(model).bfloat16()).last_hidden_state


def example(model: Any) -> Embedded:
    tokens = model.tokenise_example((Turn("human", "What?"), Turn("gpt", "That.")))
    learnt = model.embed(tokens, [])
    assert (learnt.labels != IGNORE).any()
    return learnt


def test_the_first_step_is_as_long_as_the_adapters_rate(tmp_path: Path) -> None:
    """Adam's first step is the rate itself; A, whose gradient is that of B = 0, stays."""
    model: Any = causal_model("llava_1_5")
    settings = FineTuning(1, learning_rate=0.002, batch_size=1, micro_batch=1, warmup_ratio=0.0)
    with adapted(model, SETTINGS, 0) as parameters:
        started = {name: p.detach().clone() for name, p in parameters.named_parameters()}

        def loss_of(_: Tensor, __: torch.Generator) -> Tensor:
            pulled = sum((p.sum() for p in parameters.projector.parameters()), torch.zeros(()))
            return model.next_token_loss([example(model)]) + pulled

        stage = Stage(tmp_path, "tune", {})
        fine_tune(parameters, loss_of, 1, settings, 0, stage, SilentContext())
        moved = {name: p.detach() - started[name] for name, p in parameters.named_parameters()}
        kept = stage.read_tensors(FILE)
        assert {name for name in moved} == {
            name.removeprefix("parameter.") for name in kept if name.startswith("parameter.")
        }
        snapped = {name: p.detach().clone() for name, p in parameters.named_parameters()}
    for name, step in moved.items():
        length = float(step.abs().max())
        if name.startswith("projector."):
            assert length == pytest.approx(0.002, rel=1e-3)
        elif "lora_B" in name:
            assert length == pytest.approx(0.01, rel=1e-2)
        else:
            assert length == 0.0
    restore(model, started)
    with adapted(model, SETTINGS, 5) as parameters:
        restore_parameters(stage, parameters)
        for name, parameter in parameters.named_parameters():
            assert torch.equal(parameter, snapped[name]), "what was kept is put back"
    restore(model, started)


@torch.no_grad()
def restore(model: Any, started: dict[str, Tensor]) -> None:
    for name, parameter in model.projector.named_parameters():
        parameter.copy_(started[f"projector.{name}"])


def tuned(root: Path, *stops: int) -> list[Tensor]:
    model: Any = masked_model("llada_v")
    settings = FineTuning(6, learning_rate=0.002, batch_size=1, micro_batch=1)
    for stop in (*stops, None):
        context = SilentContext() if stop is None else StopAt(stop)
        with adapted(model, SETTINGS, 0) as parameters:

            def loss_of(_: Tensor, generator: torch.Generator) -> Tensor:
                return model.noised_loss([example(model)], generator)

            try:
                fine_tune(parameters, loss_of, 1, settings, 0, Stage(root, "tune", {}), context)
            except Aborted:
                continue
            return [p.detach().clone() for p in parameters.adapters.parameters()]
    raise AssertionError("it was never finished")


def test_a_diffusion_model_is_adapted_too_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    straight, resumed = tuned(tmp_path / "straight"), tuned(tmp_path / "resumed", 2, 1)
    assert all(map(torch.equal, straight, resumed))
    assert all(p.any() for p in straight), "A and B have both moved"


def test_a_card_tells_the_adapters_rate() -> None:
    assert LoraSettings.of_card({"lora_learning_rate": 0.5}).learning_rate == 0.5
    paper = LoraSettings.of_card({"learning_rate": 0.5})
    assert (paper.rank, paper.alpha, paper.learning_rate) == (32, 64, 2e-4)
