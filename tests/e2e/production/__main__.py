"""`python -m tests.e2e.production --jobs 200 --kills 60 --json FILE`: prints the table.

When a promise was broken, the folder with all logs is kept and its path printed.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.e2e.production.chaos import run_chaos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=float, default=5400.0, help="seconds for the whole run")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="disp-chaos-"))
    chaos = run_chaos(
        folder,
        jobs=given.jobs,
        kills=given.kills,
        workers=given.workers,
        seed=given.seed,
        patience_s=given.patience,
    )
    if given.json is not None:
        given.json.write_text(json.dumps(chaos.as_json(), indent=2))
    print(chaos.table())
    if chaos.holds:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"logs: {folder}", file=sys.stderr)
    return 0 if chaos.holds else 1


if __name__ == "__main__":
    sys.exit(main())
