"""Makes the built-in checkpoints from nothing; hours on two cores, most of them the last one's."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

from disp_engine import registry
from disp_engine.builtin.recipe import gemma, llava, painters
from disp_engine.builtin.recipe.card import save_card, write_card
from disp_engine.builtin.recipe.gemma import GemmaRecipe
from disp_engine.builtin.recipe.gemma_layout import VISION as GEMMA_VISION
from disp_engine.builtin.recipe.gemma_tower import PatchTower
from disp_engine.builtin.recipe.language import train_language
from disp_engine.builtin.recipe.layout import LAYOUTS, VISION, write_configs, write_weights
from disp_engine.builtin.recipe.llava import LlavaRecipe
from disp_engine.builtin.recipe.painters import PainterRecipe
from disp_engine.builtin.recipe.plans import DEFAULTS, PLANS, Plan
from disp_engine.builtin.recipe.tokenizer import build_tokenizer, save_tokenizer
from disp_engine.builtin.recipe.tower import TowerRecipe, on_grid, supervise, train_tower
from disp_engine.models.llava.config import VisionConfig
from disp_engine.models.llava.model import LlavaModel
from disp_engine.models.llava.siglip import SiglipTower


def main() -> None:
    """Run the stages that are not done yet below `--out`, of all checkpoints or of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    makers: dict[str, Callable[[Path], None]] = {
        plan.name: partial(make_masked, plan) for plan in PLANS
    }
    makers |= {
        llava.NAME: make_llava,
        gemma.NAME: make_gemma,
        painters.DDPM: partial(
            make_painter, painters.DDPM, painters.write_ddpm, painters.DDPM_RECIPE
        ),
        painters.MAE: partial(make_painter, painters.MAE, painters.write_mae, painters.MAE_RECIPE),
    }
    parser.add_argument("--only", choices=makers, help="one of the checkpoints")
    given = parser.parse_args()
    for name in [given.only] if given.only else makers:
        if not (given.out / name / "card.yaml").exists():
            makers[name](given.out)


def make_masked(plan: Plan, out: Path) -> None:
    """A checkpoint of masked diffusion; the one that it starts from is there."""
    folder, layout = out / plan.name, LAYOUTS[plan.family]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    save_tokenizer(tokenizer, folder)
    write_configs(folder, tokenizer, layout)
    config = plan.config.from_folder(folder)
    tower = on_grid(_tower(out), config.vision)
    progress = Progress(out / f"{plan.name}.safetensors")
    student = train_language(
        plan.language,
        config,
        plan.prompter(tokenizer),
        tower,
        progress.save,
        progress.restore,
        _trained(out / plan.starts_from) if plan.starts_from else None,
    )
    write_weights(folder, tower.state_dict(), student.state_dict(), layout)
    write_card(folder, TowerRecipe(), plan)


def make_llava(out: Path) -> None:
    """LLaVA's layout: next tokens. The tower is that of the other checkpoints."""
    folder = out / llava.NAME
    folder.mkdir(parents=True, exist_ok=True)
    tower = _tower(out)
    progress = Progress(out / f"{llava.NAME}.safetensors")
    llava.write(folder, tower, LlavaRecipe(), progress.save, progress.restore)
    facts = llava.facts(TowerRecipe(), LlavaRecipe())
    save_card(folder, facts, registry.load_autoregressive(folder), DEFAULTS | llava.GUARDS)


def make_gemma(out: Path) -> None:
    """DiffusionGemma's layout: blocks of uniform noise, and a tower of its own."""
    folder = out / gemma.NAME
    folder.mkdir(parents=True, exist_ok=True)
    tower = _gemma_tower(out / "gemma-tower.safetensors")
    progress = Progress(out / f"{gemma.NAME}.safetensors")
    gemma.write(folder, tower, GemmaRecipe(), progress.save, progress.restore)
    facts = gemma.facts(TowerRecipe(), GemmaRecipe())
    save_card(folder, facts, registry.load_model(folder), DEFAULTS)


def make_painter(name: str, write: Callable[..., None], recipe: PainterRecipe, out: Path) -> None:
    """A network of the world's pictures, for baselines."""
    folder, progress = out / name, Progress(out / f"{name}.safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, recipe, progress.save, progress.restore)


def _gemma_tower(path: Path) -> PatchTower:
    torch.manual_seed(TowerRecipe().seed)
    tower = PatchTower(Gemma4VisionConfig(**GEMMA_VISION))
    if not path.exists():
        supervise(tower, GEMMA_VISION["hidden_size"], TowerRecipe())
        save_file(tower.state_dict(), path)
    tower.load_state_dict(load_file(path))
    return tower.eval()


def _tower(out: Path) -> SiglipTower:
    config = VisionConfig(**{k: v for k, v in VISION.items() if k != "model_type"})
    path = out / "tower.safetensors"
    if not path.exists():
        save_file(train_tower(TowerRecipe(), config).state_dict(), path)
    tower = SiglipTower(config)
    tower.load_state_dict(load_file(path))
    return tower.eval()


def _trained(folder: Path) -> dict[str, Tensor]:
    """A finished checkpoint's tensors by the names that `Student` has for them."""
    model = registry.load_model(folder)
    if not isinstance(model, LlavaModel) or model.newline is None:
        raise TypeError(f"{folder} has not the parts of a student.")
    parts = {"language": model.language, "projector": model.projector}
    tensors = {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    return tensors | {"newline": model.newline.detach()}


class Progress:
    """Unfinished training: parameters, both AdamW moments and the step, in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, student: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Keep the state after `step` steps."""
        tensors = {}
        for name, parameter in _trained_parameters(student):
            moments = optimizer.state[parameter]
            tensors[f"parameter.{name}"] = parameter.detach()
            tensors[f"exp_avg.{name}"] = moments["exp_avg"]
            tensors[f"exp_avg_sq.{name}"] = moments["exp_avg_sq"]
        draft = self.path.with_suffix(".draft")
        save_file(tensors, draft, metadata={"step": str(step)})
        draft.replace(self.path)

    def restore(self, student: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Put a kept state back and return its step; 0 when there is none."""
        if not self.path.exists():
            return 0
        with safe_open(self.path, framework="pt") as file:
            step = int(file.metadata()["step"])
        tensors = load_file(self.path)
        with torch.no_grad():
            for name, parameter in _trained_parameters(student):
                parameter.copy_(tensors[f"parameter.{name}"])
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": tensors[f"exp_avg.{name}"],
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"],
                }
        return step


def _trained_parameters(student: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in student.named_parameters() if p.requires_grad]


if __name__ == "__main__":
    main()
