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
from contextlib import suppress

from tests.e2e.production.deployment import Deployment
from tests.e2e.production.processes import engines_below

VICTIMS = ("worker", "engine", "gateway", "supervisor", "engine", "reconciler")
LATEST = 0.8
LINGER_S = 4.0


class Kill:
    """One death to come."""

    def __init__(self, victim: str, moment: int, rng: random.Random) -> None:
        self.victim, self.moment = victim, moment
        self._rng = rng
        self._at: float | None = None

    def strike(self, deployment: Deployment) -> bool:
        """SIGKILL one such process if one is there and its time has come; tells whether."""
        pids = _pids_of(self.victim, deployment)
        if not pids:
            self._at = None
            return False
        now = time.monotonic()
        if self._at is None:
            self._at = now + self._rng.uniform(0, LINGER_S)
        if now < self._at:
            return False
        with suppress(ProcessLookupError):
            os.kill(self._rng.choice(pids), signal.SIGKILL)
            return True
        return False


class Havoc:
    """All that is to happen to a deployment."""

    def __init__(
        self, deployment: Deployment, *, jobs: int, kills: int, s3_away_s: float, seed: int
    ) -> None:
        rng = random.Random(seed)
        self._deployment, self._s3_away_s = deployment, s3_away_s
        self._kills = [
            Kill(VICTIMS[number % len(VICTIMS)], int(rng.uniform(0, LATEST * jobs)), rng)
            for number in range(kills)
        ]
        outages: Sequence[Callable[[], None]] = (
            self._lose_redis,
            self._lose_s3,
            self._restart_database,
        )
        self._outages = [(jobs * n // 4, outage) for n, outage in enumerate(outages, 1)]
        self._s3_back_at: float | None = None
        self.killed: Counter[str] = Counter()
        self.outages: list[str] = []

    @property
    def over(self) -> bool:
        """Whether all of it has happened and everything is there again."""
        return not self._kills and not self._outages and self._s3_back_at is None

    def act(self, ended: int) -> None:
        """Do what is due when so many jobs have ended."""
        for kill in [kill for kill in self._kills if kill.moment <= ended]:
            if kill.strike(self._deployment):
                self._kills.remove(kill)
                self.killed[kill.victim] += 1
        if self._s3_back_at is not None and time.monotonic() >= self._s3_back_at:
            self._deployment.store.start()
            self._s3_back_at = None
        while self._outages and self._outages[0][0] <= ended:
            self._outages.pop(0)[1]()

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


def _pids_of(victim: str, deployment: Deployment) -> Sequence[int]:
    """A supervisor is the worker's child that watches an engine."""
    if victim in deployment.members:
        return deployment.pids(victim)
    engines = engines_below(deployment.pids("worker"))
    return [engine.pid if victim == "engine" else engine.parent for engine in engines]
