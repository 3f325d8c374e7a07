"""Those who want something of the service while it is attacked: threads with the SDK.

Each uploads its data, creates a job, in some cases asks for its end, and waits for it.
"""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from client.config import MODEL
from client.sdk import Client
from schemas.requests import DefenseJobCreate, DispHyperparameters, Method

PATIENCE_S = 300.0
SECOND_THOUGHTS_S = 20.0
SMALL = DispHyperparameters(epochs=1, retrain_epochs=1, batch_size=8, probes=1, steps=4)


@dataclass
class Ledger:
    """What the service has promised: jobs that it said it had, and ends that it told."""

    created: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Customers:
    """So many at once that every worker has something to do, and no more."""

    def __init__(
        self,
        urls: Sequence[str],
        api_key: str,
        data: Path,
        *,
        jobs: int,
        at_once: int,
        cancel_every: int,
        seed: int,
    ) -> None:
        self.ledger = Ledger()
        self._api_key, self._data, self._cancel_every = api_key, data, cancel_every
        self._rng = random.Random(seed)
        self._numbers: SimpleQueue[int] = SimpleQueue()
        for number in range(jobs):
            self._numbers.put(number)
        self._threads = [
            threading.Thread(target=self._serve, args=[urls[n % len(urls)]], daemon=True)
            for n in range(at_once)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> bool:
        """Whether anyone still waits for something."""
        return any(thread.is_alive() for thread in self._threads)

    def _serve(self, url: str) -> None:
        with Client(url, self._api_key, patience_s=PATIENCE_S) as client:
            while True:
                try:
                    self._want(client, self._numbers.get_nowait())
                except Empty:
                    return
                except Exception as error:  # told at the end; the next job is tried all the same
                    self.ledger.faults.append(repr(error))

    def _want(self, client: Client, number: int) -> None:
        request = DefenseJobCreate(
            model=MODEL,
            training_file=client.upload(self._data).id,
            method=Method(hyperparameters=SMALL),
            seed=number,
        )
        job = client.create_job(request)
        self.ledger.created.append(job.id)
        if number % self._cancel_every == self._cancel_every - 1:
            time.sleep(self._rng.uniform(0, SECOND_THOUGHTS_S))
            self.ledger.cancelled.add(job.id)
            client.cancel(job.id)
        client.wait(job.id)
        self.ledger.ended.append(job.id)
