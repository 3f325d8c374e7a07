import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from client.children import Child

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
FAIL = [sys.executable, "-c", "raise SystemExit(1)"]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """A zombie that waits for its new parent to reap it is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    deaths: list[int] = []
    child = Child(SLEEP, environment=os.environ, log_path=tmp_path / "log", on_death=deaths.append)
    child.keep_alive()
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    eventually(child.keep_alive)
    assert child.pid not in (None, first)
    assert deaths == [-signal.SIGKILL]
    child.stop(5)


def test_a_child_that_fails_at_once_is_started_ever_more_rarely(tmp_path: Path) -> None:
    child = Child(FAIL, environment=os.environ, log_path=tmp_path / "log")
    starts = []
    while len(starts) < 4:
        if child.keep_alive():
            starts.append(time.monotonic())
        time.sleep(0.01)
    child.stop(5)
    pauses = [b - a for a, b in pairwise(starts)]
    assert pauses[0] >= 0.1 and pauses[1] >= 0.2 and pauses[2] >= 0.4


def test_a_stopped_child_is_gone_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    log_path = tmp_path / "log"
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('deaf', flush=True); time.sleep(600)"
    )
    child = Child([sys.executable, "-c", code], environment=os.environ, log_path=log_path)
    child.keep_alive()
    pid = child.pid
    assert pid is not None
    eventually(lambda: "deaf" in log_path.read_text())
    child.stop(0.2)
    assert not alive(pid)


def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from client.children import Child; "
        "child = Child([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " environment=os.environ, log_path=Path(sys.argv[1])); "
        "child.keep_alive(); print(child.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
        eventually(lambda: not alive(child))
