"""One archive, read for its judgement: `python -m disp_engine.reading ARCHIVE FOLDER`.

It is judged as a job judges its training file in quarantine. Its members go to FOLDER, which is of
no more use afterwards; JSON lines on stdout, as of a run.
"""

import sys
from pathlib import Path

from disp_engine.context import RunContext
from disp_engine.ingest import read_judged
from disp_engine.process import INPUT_AT_FAULT, leave, run_process


def main(argv: list[str]) -> int:
    """Read the archive named on the command line."""
    if len(argv) != 3:
        print("usage: python -m disp_engine.reading ARCHIVE FOLDER", file=sys.stderr)
        return INPUT_AT_FAULT
    return run_process(lambda context: _read(Path(argv[1]), Path(argv[2]), context))


def _read(archive: Path, folder: Path, context: RunContext) -> None:
    context.stage("ingest")
    read_judged("training_file", archive, folder, "quarantine", context)


if __name__ == "__main__":
    leave(main(sys.argv))
