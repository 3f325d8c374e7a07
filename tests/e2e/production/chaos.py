"""One run: customers, havoc, audit."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.connect import open_job_store
from tests.e2e.production.audit import Findings, audit
from tests.e2e.production.customers import Customers, Ledger
from tests.e2e.production.deployment import Deployment
from tests.e2e.production.havoc import Havoc
from tests.e2e.production.processes import processes
from tests.e2e.workload import build_data

TICK_S = 0.1
DYING_S = 10.0
LATE_S = 120.0
CANCEL_EVERY = 20


@dataclass(frozen=True)
class Chaos:
    """What was done to the deployment and what came of it."""

    findings: Findings
    killed: Mapping[str, int]
    outages: Sequence[str]
    orphans: Sequence[str]
    faults: Sequence[str]
    asked: tuple[int, int]
    seconds: float

    @property
    def kills(self) -> int:
        """All together."""
        return sum(self.killed.values())

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or changed, and all that was asked for was done."""
        found = self.findings
        broken = (found.lost, found.finished_twice, found.inconsistent, self.orphans, self.faults)
        return not any(broken) and (found.jobs, self.kills) == self.asked

    def as_json(self) -> dict[str, Any]:
        """The numbers, and the names behind those that should be zero."""
        found = self.findings
        return {
            "jobs": found.jobs,
            "kills": self.kills,
            "lost": len(found.lost),
            "finished_twice": len(found.finished_twice),
            "inconsistent": len(found.inconsistent),
            "seconds": round(self.seconds, 1),
            "holds": self.holds,
            "cancelled": found.cancelled,
            "attempts": found.attempts,
            "killed": dict(self.killed),
            "outages": list(self.outages),
            "orphans": list(self.orphans),
            "faults": list(self.faults),
            "broken": found.lost + found.finished_twice + found.inconsistent,
        }

    def table(self) -> str:
        """The numbers for a reader."""
        rows = [(name, value) for name, value in self.as_json().items() if value != []]
        return "\n".join(f"{name:>15}  {_shown(value)}" for name, value in rows)


def run_chaos(
    folder: Path,
    *,
    jobs: int,
    kills: int,
    workers: int = 4,
    gateways: int = 2,
    s3_away_s: float = 20.0,
    seed: int = 0,
    patience_s: float,
) -> Chaos:
    """Run everything below `folder`; jobs that have not ended after `patience_s` are lost."""
    data = build_data(folder / "data", samples=8, test=1)
    deployment = Deployment(folder, workers=workers, gateways=gateways)
    try:
        deployment.start()
        customers = Customers(
            deployment.urls,
            deployment.api_key,
            data.training,
            jobs=jobs,
            at_once=2 * workers,
            cancel_every=min(CANCEL_EVERY, jobs),
            seed=seed,
        )
        havoc = Havoc(deployment, jobs=jobs, kills=kills, s3_away_s=s3_away_s, seed=seed)
        began = time.monotonic()
        _endure(deployment, customers, havoc, began + patience_s)
        seconds = time.monotonic() - began
        findings = _examine(deployment, customers.ledger)
    finally:
        deployment.stop()
    faults = customers.ledger.faults
    orphans = _orphans(folder)
    killed, outages = havoc.killed, havoc.outages
    return Chaos(findings, killed, outages, orphans, faults, (jobs, kills), seconds)


def _endure(deployment: Deployment, customers: Customers, havoc: Havoc, deadline: float) -> None:
    """Until nobody waits any more and all has happened that was to happen."""
    customers.start()
    while (customers.waiting or not havoc.over) and time.monotonic() < deadline:
        deployment.keep_alive()
        havoc.act(len(customers.ledger.ended))
        if not customers.waiting:  # what needs a job to hit will not happen any more
            deadline = min(deadline, time.monotonic() + LATE_S)
        time.sleep(TICK_S)


def _examine(deployment: Deployment, ledger: Ledger) -> Findings:
    store = open_job_store(deployment.database_url)
    try:
        return audit(store, deployment.s3, ledger)
    finally:
        store.close()


def _orphans(folder: Path) -> Sequence[str]:
    """Engines that outlive everyone who could have wanted them."""
    deadline = time.monotonic() + DYING_S
    while True:
        left = [each for each in processes() if each.is_engine and str(folder) in each.command]
        if not left or time.monotonic() > deadline:
            return [each.command for each in left]
        time.sleep(TICK_S)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} × {name}" for name, count in sorted(value.items()))
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
