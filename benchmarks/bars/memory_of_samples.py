"""Bar 9: what one more sample costs a whole job in resident memory."""

import json
import tempfile
from pathlib import Path

from benchmarks.bench import TOKENIZER, Bench
from benchmarks.lines import Line
from benchmarks.memory import in_child
from disp_engine.attacks.poison import build_demo

FEW, MANY = 200, 2000
MOST = 12 * 1024
SHORT = {"epochs": 0.1, "retrain_epochs": 0.1, "probes": 1, "steps": 1, "micro_batch": 8}
"""What makes a job quick and takes no memory away that grows with its samples."""


def measure(bench: Bench) -> list[Line]:
    """Jobs of FEW and of MANY samples on the built-in checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = (_peak(Path(folder) / str(count), count) for count in (FEW, MANY))
    return [line(few, many)]


def line(few: int, many: int) -> Line:
    """Judge two peaks."""
    slope = (many - few) / (MANY - FEW)
    detail = {"peak_bytes": {str(FEW): few, str(MANY): many}, "unit": "bytes per sample"}
    return Line("9 resident memory over samples", round(slope), MOST, slope <= MOST, detail)


def _peak(folder: Path, samples: int) -> int:
    data = build_demo(folder / "data", samples=samples, test=1)
    spec = {
        "model_dir": str(TOKENIZER),
        "model_id": TOKENIZER.name,
        "training_file": str(data.training),
        "work_dir": str(folder / "work"),
        "out_dir": str(folder / "out"),
        "method": {"type": "disp", "hyperparameters": SHORT},
        "threads": 1,
    }
    told = folder / "spec.json"
    told.write_text(json.dumps(spec))
    return in_child("job", f"--spec={told}")
