import threading
import time
from collections.abc import Callable

import pytest

from storage.interfaces import Directive
from tests.workers.conftest import Bench
from workers.context import JobContext, Outcome

Wait = Callable[[Callable[[], bool]], None]


def test_a_heartbeat_that_hangs_is_a_lost_lease_and_holds_nobody_up(
    bench: Bench, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, beats = threading.Event(), []

    def hang(*_: object, **__: object) -> Directive:
        beats.append(time.monotonic())
        if len(beats) > 1:
            released.wait()
        return Directive.CONTINUE

    monkeypatch.setattr(type(bench.store), "heartbeat", hang)
    monkeypatch.setattr("workers.context.PARTING_S", 0.1)
    context = JobContext(
        bench.store, bench.claim(), lease_s=0.5, heartbeat_s=0.05, stop=threading.Event()
    )
    with context:
        assert context.halt is None
        eventually(lambda: context.halt is Outcome.LEASE_LOST)
        assert time.monotonic() - beats[0] >= 0.5
        left_at = time.monotonic()
    assert time.monotonic() - left_at < 5
    released.set()
