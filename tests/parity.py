"""Hold an adapter against a folder of recordings of the official code.

`python -m tests.parity FOLDER --json FILE` compares every tensor of `expected.safetensors`. What
is compared is found in `meta.json` and in the tensors' names, so any folder made the same way
(other seeds, sizes, picture modes) can be given. Exit status 1 when something does not hold.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from disp_engine.registry import resolve
from tests.recordings.comparison import EXACT, Comparison, Recording

RECORDINGS: Mapping[str, str] = {
    "DiffusionGemmaForBlockDiffusion": "tests.recordings.diffusion_gemma:DiffusionGemmaRecording",
    "LlavaLLaDAModelLM": "tests.recordings.llada_v:LladaVRecording",
    "LlavaLladaForMaskedDiffusion": "tests.recordings.lavida:LavidaRecording",
}
"""Readers of recordings by the `architectures` entry of config.json."""


def recording(folder: Path) -> Recording:
    """Read a folder as its family does."""
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    found: Recording = resolve(RECORDINGS[name])(folder)
    return found


def compare_all(folder: Path) -> dict[str, Any]:
    """Compare everything.

    A recorded tensor that nothing compared with does not hold, nor does a folder that cannot be
    loaded.
    """
    try:
        record = recording(folder)
    except Exception as error:
        refused = Comparison("load", f"raised {error!r}", None, EXACT, holds=False)
        return {"holds": False, "cases": [asdict(refused)]}
    by_tensor: dict[str, Comparison] = {}
    extra: list[Comparison] = []
    for case, compared in record.cases():
        try:
            found = compared()
        except Exception as error:
            extra.append(Comparison(case, f"raised {error!r}", None, EXACT, holds=False))
        else:
            by_tensor |= {name: c for name, c in found.items() if name in record.expected}
            extra += [c for name, c in found.items() if name not in record.expected]
    cases = [*by_tensor.values(), *extra]
    for name in sorted(record.expected.keys() - by_tensor.keys()):
        case, _, quantity = name.partition(".")
        cases.append(Comparison(case, quantity, None, EXACT, holds=False))
    return {
        "holds": all(comparison.holds for comparison in cases),
        "cases": [asdict(comparison) for comparison in cases],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, required=True, dest="file")
    options = parser.parse_args(arguments)
    result = compare_all(options.folder)
    options.file.write_text(json.dumps(result, indent=1))
    for case in result["cases"]:
        if not case["holds"]:
            print(f"{case['case']}.{case['quantity']}: error {case['error']}")
    print(f"{sum(case['holds'] for case in result['cases'])} of {len(result['cases'])} hold")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
