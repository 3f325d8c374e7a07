"""How much memory a process and all that it starts take, sampled from /proc."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAMPLE_S = 0.02


class Memory:
    """The peak of a tree of processes while something is done; of short-lived ones, their own."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._residents = tree(root)
        self.peak_mb = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample while the block runs; `peak_mb` is its result."""
        self.peak_mb, done = self.sample(), threading.Event()
        thread = threading.Thread(target=self._watch, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def sample(self) -> float:
        """What the residents take now, and what the others have taken at most."""
        found = tree(self._root)
        peaks = [_field(p, "VmRSS" if p in self._residents else "VmHWM") for p in found]
        return sum(peaks) / 1024

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(SAMPLE_S):
            self.peak_mb = max(self.peak_mb, self.sample())


def tree(root: int) -> set[int]:
    """The process and its descendants."""
    parents = dict(_parents())
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it has ended


def _field(pid: int, name: str) -> int:
    """Kilobytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
