"""The engine's process as its supervisor reads it."""

import sys
import threading
import time
from pathlib import Path

from workers.engine_process import EngineProcess


def test_who_waits_for_a_line_goes_on_when_woken(tmp_path: Path) -> None:
    silent = [sys.executable, "-c", "input()"]
    engine = EngineProcess(silent, log_path=tmp_path / "log")
    try:
        threading.Timer(0.2, engine.wake).start()
        began = time.monotonic()
        assert engine.read(60.0) == b""
        assert time.monotonic() - began < 30
    finally:
        engine.reap()
