"""The supervisor's side of shared work: grants shards, stores their files, fetches those of others.

A shard's files travel as one create-only safetensors object of bytes under names; what two workers
make of a shard is the same, so whoever stores it first has won. A stage's marker `COMPLETE` is one
of its files only where the whole stage is one shard.
"""

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar
from uuid import uuid4

import numpy as np
import structlog
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from safetensors.numpy import load, save

from storage.errors import AlreadyExists, LeaseLost
from storage.interfaces import ArtifactStore, Claim, Shard, ShardClaim, ShardStore
from storage.keys import shard_key, shards_prefix
from workers.context import Halted, JobContext

log = structlog.get_logger()

FOLDER = r"^[a-z_]{1,32}-[0-9a-f]{24}$"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")
SHARDS_OF_A_STAGE = 64
ENOUGH_SHARDS = 16
"""From so many on, a shard has at least BATCHES_OF_A_SHARD: each costs transactions and a file."""
BATCHES_OF_A_SHARD = 4
RETRY_S = 1.0
Progress = Literal["waiting"]
Given = TypeVar("Given")


class ShardsOffered(BaseModel):
    """The engine can share these stages; a helper needs `source` first."""

    type: Literal["shards_offered"]
    source: str = Field(pattern=FOLDER)
    folders: list[Annotated[str, Field(pattern=FOLDER)]]
    samples: int = Field(ge=1)
    cut: int = Field(ge=1)


class ShardWanted(BaseModel):
    """The engine waits for a shard of this stage."""

    type: Literal["shard_wanted"]
    folder: str = Field(pattern=FOLDER)


class ShardDone(BaseModel):
    """The files of a granted shard are in the stage's folder."""

    type: Literal["shard_done"]
    folder: str = Field(pattern=FOLDER)
    first: int
    last: int


Message = ShardsOffered | ShardWanted | ShardDone
_message: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


class Engine(Protocol):
    """Where answers go; woken, it lets whoever waits for its next line go on without one."""

    def tell(self, answer: object) -> None: ...

    def wake(self) -> None: ...


class Hints(Protocol):
    """Tells idle workers of a job whose shards may be taken."""

    def hint_shards(self, job_id: str, count: int) -> None: ...


def forget_shards(artifacts: ArtifactStore, claim: Claim) -> None:
    """Delete what a job's shards have left; what cannot be deleted now goes with the job."""
    try:
        for key in list(artifacts.keys(shards_prefix(claim.tenant, claim.job_id))):
            artifacts.delete(key)
    except Exception as error:
        log.warning("shards_not_deleted", error=repr(error))


def cut_shards(folder: str, samples: int, cut: int) -> list[Shard]:
    """Cut a stage at borders of micro-batches into at most SHARDS_OF_A_STAGE shards."""
    batches = -(-samples // cut)
    count = min(max(batches // BATCHES_OF_A_SHARD, ENOUGH_SHARDS), SHARDS_OF_A_STAGE)
    step = cut * -(-batches // count)
    return [Shard(folder, first, min(first + step, samples)) for first in range(0, samples, step)]


class ShardDesk:
    """Serves one engine; `claim` is the right of its job's attempt, None for a helper."""

    def __init__(
        self,
        store: ShardStore,
        artifacts: ArtifactStore,
        context: JobContext[Any],
        stages: Path,
        *,
        right: ShardClaim,
        claim: Claim | None,
        lease_s: float,
        hints: Hints | None = None,
    ) -> None:
        self._store, self._artifacts, self._context = store, artifacts, context
        self._stages, self._right, self._claim = stages, right, claim
        self._lease_s, self._hints = lease_s, hints
        self._wanted: str | None = None
        self._engine: Engine | None = None
        self._closing = threading.Event()
        self._present: set[Shard] = set()
        self._storing: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shards")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        structlog.contextvars.unbind_contextvars("shard")
        if error is not None:
            self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        try:
            self._store.release_shards(self._right)
        except Exception as fault:  # the leases run out by themselves
            log.warning("shards_not_released", error=repr(fault))

    def fetch_finished(self) -> None:
        """Bring everything that is stored of the job's stages into the stages' folder."""
        for shard in self._store.finished_shards(self._right):
            self._context.check()
            if shard not in self._present:
                self._fetch(shard)

    def take(self, line: bytes) -> bool:
        """Note a line of the engine's; False if it is about something else."""
        if b'"shard' not in line[:24]:
            return False
        try:
            message = _message.validate_json(line)
        except ValidationError:
            return False
        match message:
            case ShardsOffered():
                self._storing.append(self._in_background(self._offer, message))
            case ShardWanted():
                self._wanted = message.folder
            case ShardDone():
                shard = Shard(message.folder, message.first, message.last)
                self._present.add(shard)
                self._storing.append(self._in_background(self._persist, shard))
                structlog.contextvars.unbind_contextvars("shard")
        return True

    def _in_background(self, work: Callable[[Given], None], given: Given) -> Future[None]:
        """Do it in the desk's thread, whose events tell of the same job and shard as ours."""
        done = self._pool.submit(copy_context().run, work, given)
        done.add_done_callback(self._wake)
        return done

    def _wake(self, _: Future[None]) -> None:
        if self._engine is not None:
            self._engine.wake()

    def serve(self, engine: Engine) -> None:
        """Answer a waiting engine as soon as there is something to say; a store may be away."""
        self._engine = engine
        self._raise_faults()
        if self._wanted is None:
            return
        try:
            answer = self._answer(self._wanted)
        except (Halted, LeaseLost):
            raise
        except Exception as error:  # a store that is away: the engine waits a little longer
            log.warning("shard_not_granted", error=repr(error))
            return
        if answer != "waiting":
            self._wanted = None
            engine.tell(answer)

    def _answer(self, folder: str) -> dict[str, int] | Progress | None:
        """A shard to work on; None when all are here; or that others are still at it."""
        if self._claim is not None and self._storing and not self._storing[0].done():
            return "waiting"  # the shards are not open yet, or their source is not stored
        turn = self._store.take_shard(
            self._right,
            folder,
            lease_s=self._lease_s,
            attempt=None if self._claim is None else self._claim.attempt,
        )
        if turn.shard is not None:
            name = f"{folder}/{turn.shard.first}-{turn.shard.last}"
            structlog.contextvars.bind_contextvars(shard=name)
            return {"first": turn.shard.first, "last": turn.shard.last, "done": turn.done}
        if turn.unfinished:
            return "waiting"
        if self._claim is None and not turn.done:
            raise LeaseLost()  # the job has ended, and its shards are forgotten
        self.fetch_finished()
        return None

    def _offer(self, offered: ShardsOffered) -> None:
        assert self._claim is not None
        source = Shard(offered.source, 0, 0)
        shards = [s for f in offered.folders for s in cut_shards(f, offered.samples, offered.cut)]
        self._store.open_shards(self._claim, [source])
        self._present.add(source)
        self._persist(source)
        self._store.open_shards(self._claim, shards)
        if self._hints is not None and len(shards) > len(offered.folders):
            self._hints.hint_shards(self._right.job_id, len(shards) // len(offered.folders) - 1)

    def _persist(self, shard: Shard) -> None:
        """Store a shard's files, then say so; tried again for as long as the attempt may go on."""
        data = self._pack(shard)
        while True:
            try:
                self._store_once(shard, data)
                return
            except Exception as error:
                if self._closing.is_set() or self._context.should_abort():
                    return
                log.warning("shard_not_stored", error=repr(error))
                self._closing.wait(RETRY_S)

    def _store_once(self, shard: Shard, data: bytes) -> None:
        try:
            self._artifacts.create(self._key(shard), data)
        except AlreadyExists:
            log.info("shard_stored_by_another")
        self._store.finish_shard(self._right, shard)

    def _pack(self, shard: Shard) -> bytes:
        """A whole stage for a shard without samples, else the files named by their sample."""
        folder = self._stages / shard.folder
        paths = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
        if shard.last > shard.first:
            paths = [path for path in paths if _is_in(path, shard)]
        files = {path.name: path.read_bytes() for path in paths}
        return save({name: np.frombuffer(bytearray(data), np.uint8) if data
                     else np.zeros(0, np.uint8) for name, data in files.items()})  # fmt: skip

    def _fetch(self, shard: Shard) -> None:
        folder = self._stages / shard.folder
        folder.mkdir(parents=True, exist_ok=True)
        files = load(self._artifacts.get(self._key(shard)))
        for name in sorted(files, key=lambda name: name == "COMPLETE"):
            if NAME.fullmatch(name) and not (folder / name).exists():
                draft = folder / f".{name}.{uuid4().hex}"
                draft.write_bytes(files[name].tobytes())
                os.replace(draft, folder / name)
        self._present.add(shard)

    def _key(self, shard: Shard) -> str:
        right = self._right
        return shard_key(right.tenant, right.job_id, shard.folder, shard.first, shard.last)

    def _raise_faults(self) -> None:
        for future in self._storing:
            if future.done():
                future.result()


def _is_in(path: Path, shard: Shard) -> bool:
    number = path.stem
    return number.isdigit() and shard.first <= int(number) < shard.last
