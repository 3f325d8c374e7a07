"""`python -m tests.parity FOLDER --json FILE`; exit status 1 when something does not hold."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.parity import compare_all


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
