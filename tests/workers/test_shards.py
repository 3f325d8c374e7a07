"""Two workers with disks of their own share one job; each has a real engine process."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from schemas.jobs import JobStatus
from storage.errors import LeaseLost
from storage.interfaces import Claim, Shard, ShardClaim
from tests.workers.conftest import TENANT, Bench
from workers.context import Outcome
from workers.helping import help_out
from workers.shards import SHARDS_OF_A_STAGE, ShardDesk, cut_shards
from workers.supervisor import Workplace, supervise

FOLDER = f"purify-{'1' * 24}"


def elsewhere(workplace: Workplace, folder: Path) -> Workplace:
    settings = workplace.settings.model_copy(update={"work_dir": folder})
    return replace(workplace, settings=settings)


def own(work_dir: Path) -> list[int]:
    path = work_dir / TENANT / "cache" / "own"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def running(bench: Bench) -> tuple[Claim, ShardClaim]:
    claim = bench.claim()
    bench.store.record(claim, status=JobStatus.RUNNING)
    return claim, ShardClaim(claim.job_id, claim.tenant, "helper")


def test_two_workers_share_a_job_and_no_shard_is_done_twice(bench: Bench, tmp_path: Path) -> None:
    workplace = bench.running("share")
    other = elsewhere(workplace, tmp_path / "other")
    helped = threading.Event()

    def lend_a_hand() -> None:
        deadline = time.monotonic() + 30
        while not help_out(other, threading.Event()) and time.monotonic() < deadline:
            time.sleep(0.02)
        helped.set()

    threading.Thread(target=lend_a_hand).start()
    assert supervise(bench.claim(), workplace, threading.Event()) is Outcome.SUCCEEDED
    assert helped.wait(30)
    mine, theirs = own(workplace.settings.work_dir), own(tmp_path / "other")
    assert sorted(mine + theirs) == [0, 2, 4, 6]
    assert theirs, "the helper came too late to help"


def test_one_worker_does_all_shards_itself_and_leaves_none_behind(bench: Bench) -> None:
    workplace = bench.running("share")
    assert supervise(bench.claim(), workplace, threading.Event()) is Outcome.SUCCEEDED
    assert own(workplace.settings.work_dir) == [0, 2, 4, 6]
    assert not [key for key in workplace.artifacts.keys(f"tenants/{TENANT}/") if "shards" in key]
    assert not help_out(workplace, threading.Event())


def test_what_a_dead_attempt_has_stored_is_not_done_again_on_another_disk(
    bench: Bench, tmp_path: Path
) -> None:
    workplace = bench.running("share")
    stop = threading.Event()
    threading.Timer(0.0, lambda: _stop_after_first(workplace.settings.work_dir, stop)).start()
    supervise(bench.claim(), workplace, stop)
    before = own(workplace.settings.work_dir)
    other = elsewhere(workplace, tmp_path / "other")
    assert supervise(bench.claim("second"), other, threading.Event()) is Outcome.SUCCEEDED
    again = set(before) & set(own(tmp_path / "other"))
    assert len(before) >= 2 and len(again) <= 1  # the last may have been on its way when all ended
    assert set(before) | set(own(tmp_path / "other")) == {0, 2, 4, 6}


def _stop_after_first(work_dir: Path, stop: threading.Event) -> None:
    deadline = time.monotonic() + 30
    while len(own(work_dir)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()


def test_a_shard_is_leased_to_one_and_to_another_when_the_lease_has_ended(bench: Bench) -> None:
    claim, helper = running(bench)
    bench.store.open_shards(claim, [Shard(FOLDER, 0, 2)])
    other = replace(helper, owner="other")
    first = bench.store.take_shard(helper, FOLDER, lease_s=0.3)
    assert first.shard == Shard(FOLDER, 0, 2)
    assert bench.store.take_shard(other, FOLDER, lease_s=9.0).shard is None
    time.sleep(0.4)
    assert bench.store.take_shard(other, FOLDER, lease_s=9.0).shard == first.shard


def test_renewed_leases_keep_others_away_and_released_ones_do_not(bench: Bench) -> None:
    claim, helper = running(bench)
    bench.store.open_shards(claim, [Shard(FOLDER, 0, 2)])
    bench.store.take_shard(helper, FOLDER, lease_s=0.3)
    bench.store.renew_shards(helper, lease_s=9.0)
    time.sleep(0.4)
    assert bench.store.find_help_wanted("other") is None
    bench.store.release_shards(helper)
    assert bench.store.find_help_wanted("other") is not None


def test_a_later_attempt_takes_what_an_earlier_one_held(bench: Bench) -> None:
    claim, _ = running(bench)
    right = ShardClaim(claim.job_id, claim.tenant, claim.owner)
    bench.store.open_shards(claim, [Shard(FOLDER, 0, 2)])
    bench.store.take_shard(right, FOLDER, lease_s=9.0, attempt=claim.attempt)
    later = replace(right, owner="later")
    assert bench.store.take_shard(later, FOLDER, lease_s=9.0, attempt=2).shard is not None


def test_opening_shards_again_leaves_finished_ones_finished(bench: Bench) -> None:
    claim, helper = running(bench)
    shards = [Shard(FOLDER, 0, 2), Shard(FOLDER, 2, 3)]
    bench.store.open_shards(claim, shards)
    bench.store.finish_shard(helper, shards[0])
    bench.store.open_shards(claim, shards)
    assert list(bench.store.finished_shards(helper)) == shards[:1]
    turn = bench.store.take_shard(helper, FOLDER, lease_s=9.0)
    assert (turn.shard, turn.unfinished, turn.done) == (shards[1], 1, 2)


def test_a_helper_of_a_job_that_has_ended_leaves(bench: Bench, tmp_path: Path) -> None:
    _, helper = running(bench)
    context: Any = None
    engine: Any = None
    desk = ShardDesk(
        bench.store,
        bench.workplace.artifacts,
        context,
        tmp_path,
        right=helper,
        claim=None,
        lease_s=9.0,
    )
    assert desk.take(b'{"type": "shard_wanted", "folder": "%s"}' % FOLDER.encode())
    with pytest.raises(LeaseLost):
        desk.serve(engine)


@pytest.mark.parametrize(("samples", "cut"), [(1, 32), (64, 32), (1000, 3), (10_000, 32)])
def test_shards_are_cut_at_micro_batches_and_cover_all_samples_once(samples: int, cut: int) -> None:
    shards = cut_shards(FOLDER, samples, cut)
    assert len(shards) <= SHARDS_OF_A_STAGE
    assert all(shard.first % cut == 0 for shard in shards)
    covered = [n for shard in shards for n in range(shard.first, shard.last)]
    assert covered == list(range(samples))


def test_what_is_logged_while_a_shard_is_stored_tells_its_job_and_its_number(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    real = type(bench.workplace.artifacts).create

    def create(store: Any, key: str, data: bytes) -> Any:
        told.append(structlog.contextvars.get_contextvars())
        return real(store, key, data)

    monkeypatch.setattr(type(bench.workplace.artifacts), "create", create)
    assert supervise(bench.claim(), bench.running("share"), threading.Event()) is Outcome.SUCCEEDED
    assert {(one["job_id"], one["attempt"], one["tenant"]) for one in told} == {
        (bench.job_id, 1, TENANT)
    }
    shards = [one["shard"] for one in told if "shard" in one]
    assert sorted(shards) == [f"{FOLDER}/{first}-{first + 2}" for first in (0, 2, 4, 6)]
    assert "shard" not in told[-1], "the manifest is of no shard"
    assert structlog.contextvars.get_contextvars() == {}
