"""What runs on this machine, as Linux tells it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process; the words of its command are joined by spaces."""

    pid: int
    parent: int
    command: str

    @property
    def is_engine(self) -> bool:
        """Whether it computes a job, as the child of a supervisor."""
        return " -m disp_engine " in self.command


def processes() -> Sequence[Process]:
    """Everything that runs at the moment; what ends meanwhile is left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        found.append(Process(int(folder.name), parent, command.decode(errors="replace")))
    return found


def engines_below(roots: Sequence[int]) -> Sequence[Process]:
    """The engines whose supervisor is a child of one of these, or is one of them."""
    running = processes()
    above = {process.pid: process.parent for process in running}
    return [
        process
        for process in running
        if process.is_engine and {process.parent, above.get(process.parent)} & set(roots)
    ]
