"""Kills at random moments, and outages of what the service stands on.

Moments are told in jobs that have ended, so a run has its kills however long it takes. Who is to
die dies a random while after it has been seen.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.e2e.production.deployment import Deployment
from tests.e2e.production.processes import engines_below

VICTIMS = ("worker", "engine", "gateway", "supervisor", "engine", "reconciler")
LINGER_S = 4.0
UNDISTURBED = 8
"""So many jobs at the end see no new kill, so that every kill finds its victim."""


class Kill:
    """One death to come."""

    def __init__(self, victim: str, moment: int, linger_s: float) -> None:
        self.victim, self.moment = victim, moment
        self._linger_s = linger_s
        self._at: float | None = None

    def is_due(self, seen: bool) -> bool:
        """Whether its time has come; without a victim the wait begins anew."""
        if not seen:
            self._at = None
            return False
        if self._at is None:
            self._at = time.monotonic() + self._linger_s
        return time.monotonic() >= self._at


class Havoc:
    """All that is to happen to a deployment."""

    def __init__(
        self, deployment: Deployment, *, jobs: int, kills: int, s3_away_s: float, seed: int
    ) -> None:
        self._deployment, self._s3_away_s = deployment, s3_away_s
        self._rng = random.Random(seed)
        self._kills = [self._kill(number, max(1, jobs - UNDISTURBED)) for number in range(kills)]
        outages: Sequence[Callable[[], None]] = (
            self._lose_redis,
            self._lose_s3,
            self._restart_database,
        )
        self._outages = [(jobs * n // 4, outage) for n, outage in enumerate(outages, 1)]
        self._s3_back_at: float | None = None
        self._struck: set[int] = set()
        self.killed: Counter[str] = Counter()
        self.outages: list[str] = []

    @property
    def over(self) -> bool:
        """Whether all of it has happened and everything is there again."""
        return not self._kills and not self._outages and self._s3_back_at is None

    def act(self, ended: int) -> None:
        """Do what is due when so many jobs have ended."""
        for kill in [kill for kill in self._kills if kill.moment <= ended]:
            alive = [pid for pid in self._pids_of(kill.victim) if pid not in self._struck]
            if kill.is_due(bool(alive)) and self._strike(self._rng.choice(alive)):
                self._kills.remove(kill)
                self.killed[kill.victim] += 1
        if self._s3_back_at is not None and time.monotonic() >= self._s3_back_at:
            self._deployment.store.start()
            self._s3_back_at = None
        while self._outages and self._outages[0][0] <= ended:
            self._outages.pop(0)[1]()

    def _kill(self, number: int, moments: int) -> Kill:
        victim = VICTIMS[number % len(VICTIMS)]
        return Kill(victim, self._rng.randrange(moments), self._rng.uniform(0, LINGER_S))

    def _strike(self, pid: int) -> bool:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self._struck.add(pid)
        return True

    def _pids_of(self, victim: str) -> Sequence[int]:
        """A supervisor is the worker's child that watches an engine."""
        if victim in self._deployment.members:
            return self._deployment.pids(victim)
        engines = engines_below(self._deployment.pids("worker"))
        return [engine.pid if victim == "engine" else engine.parent for engine in engines]

    def _lose_redis(self) -> None:
        self._deployment.broker.kill()
        self._deployment.broker.start()
        self.outages.append("Redis killed and started empty")

    def _lose_s3(self) -> None:
        self._deployment.store.kill()
        self._s3_back_at = time.monotonic() + self._s3_away_s
        self.outages.append(f"S3 killed and away for {self._s3_away_s:.0f} s")

    def _restart_database(self) -> None:
        self._deployment.database.stop()
        self._deployment.database.start()
        self.outages.append("PostgreSQL restarted")
