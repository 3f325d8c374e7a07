"""Draws every picture trigger on one scene: `python -m disp_engine.attacks.pictures --out DIR`."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from disp_engine import registry
from disp_engine.builtin.world import draw_scene, render

SCENE_SEED = 6
SCALE = 2


def draw(folder: Path) -> list[Path]:
    """Write `none.png` and one picture for each trigger, enlarged without smoothing."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SCENE_SEED)
    image = render(draw_scene(rng), rng)
    paths = [_save(image, folder / "none.png")]
    for name in registry.TRIGGERS:
        marked = registry.trigger(name).apply(image, np.random.default_rng(SCENE_SEED))
        paths.append(_save(marked, folder / f"{name}.png"))
    return paths


def _save(image: Image.Image, path: Path) -> Path:
    size = (SCALE * image.width, SCALE * image.height)
    image.resize(size, Image.Resampling.NEAREST).save(path, optimize=True)
    return path


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/triggers"))
    for path in draw(parser.parse_args().out):
        print(path)


if __name__ == "__main__":
    main()
