"""One of the processes that tune together: `accelerate launch -m disp_engine.training.rank STAGE`.

It takes its assignment from the stage's folder and keeps the state there. The first rank tells of
the tuning in JSON lines. When stdin ends, all save and leave after the same step.
"""

import os
import sys
import threading
from pathlib import Path

from disp_engine.errors import Aborted, InvalidRequestError
from disp_engine.lines import JsonLines, take_stdout
from disp_engine.parentage import die_with_parent


def main(folder: Path) -> None:
    """Tune to the end, to a stop, or to settings that cannot work."""
    told = take_stdout()
    with told if os.environ["RANK"] == "0" else open(os.devnull, "w") as out:
        context = JsonLines(out)
        threading.Thread(target=_listen, args=(context.stopping,), daemon=True).start()
        try:
            _tune(folder, context)
            context.write(type="done")
        except Aborted:
            pass
        except InvalidRequestError as error:
            context.write(type="error", message=str(error))


def _tune(folder: Path, context: JsonLines) -> None:
    import torch
    from accelerate import Accelerator

    from disp_engine import registry
    from disp_engine.context import SilentContext
    from disp_engine.stages import StageFolder
    from disp_engine.training.examples import FeatureCache
    from disp_engine.training.projector import restore, tune_samples
    from disp_engine.training.ranks import START, Assignment

    stage = StageFolder(folder)
    told = Assignment.read(stage)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    torch.set_num_threads(told.threads or _fair_share(accelerator.num_processes))
    model = registry.load_visual(
        told.model_dir, device=accelerator.device, options=told.model_options
    )
    restore(model, stage.read_tensors(START))
    cache = FeatureCache(model, told.root, SilentContext())
    tune_samples(model, told.samples, cache, told.settings, told.seed, stage, context)
    accelerator.end_training()


def _fair_share(processes: int) -> int:
    return max(1, (os.cpu_count() or 1) // processes)


def _listen(stopping: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stopping.set()


if __name__ == "__main__":
    die_with_parent()
    main(Path(sys.argv[1]))
