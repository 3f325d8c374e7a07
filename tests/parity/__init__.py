"""Hold an adapter against a folder of recordings of the official code.

Each family brings a class that finds in a folder what there is to compare; everything is found in
`config.json`, `meta.json` and the tensors' names, so any folder made the same way (other seeds,
sizes, picture modes) can be given.
"""

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from disp_engine.models.checkpoint import read_json
from tests.parity.comparison import EXACT, Comparison, Recorded

FAMILIES: Mapping[str, str] = {
    "LlavaLLaDAModelLM": "tests.parity.llava:Recording",
}
"""The class that reads a family's recordings, by the `architectures` entry of config.json."""


def read(folder: Path) -> Recorded:
    """The recordings of a folder, with the adapter loaded from it."""
    names = read_json(folder / "config.json")["architectures"]
    (target,) = (FAMILIES[name] for name in names if name in FAMILIES)
    module, _, name = target.partition(":")
    recorded: Recorded = getattr(import_module(module), name)(folder)
    return recorded


def compare_all(folder: Path) -> dict[str, Any]:
    """Compare everything; a recorded tensor that nothing compared with does not hold."""
    record = read(folder)
    by_tensor: dict[str, Comparison] = {}
    extra: list[Comparison] = []
    for case, compared in record.comparisons():
        try:
            found = compared()
        except Exception as error:
            extra.append(Comparison(case, f"raised {error!r}", None, EXACT, holds=False))
        else:
            by_tensor |= {name: c for name, c in found.items() if name in record.expected}
            extra += [c for name, c in found.items() if name not in record.expected]
    cases = [*by_tensor.values(), *extra]
    for name in sorted(record.expected.keys() - by_tensor.keys() - record.skipped.keys()):
        case, _, quantity = name.partition(".")
        cases.append(Comparison(case, quantity, None, EXACT, holds=False))
    return {
        "holds": all(comparison.holds for comparison in cases),
        "cases": [asdict(comparison) for comparison in cases],
        "skipped": {name: why for name, why in record.skipped.items() if name in record.expected},
    }
