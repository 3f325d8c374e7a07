import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.files import FilePurpose, FileRefusal, FileStatus
from schemas.jobs import DataFault
from schemas.requests import DefenseJobCreate, Evaluation
from storage.errors import LeaseLost, NotFound, UnusableFile
from storage.ids import new_id
from storage.interfaces import Directive, FileDraft, Findings
from tests.storage.world import MODEL, STRANGER, TENANT, add_job, add_training_file

LEASE_S = 60.0
FAULT = DataFault(where="data.json, line 2", code="invalid_dataset", reason="turn 0 is empty")
HOPELESS = Findings(error=FileRefusal(code="archive_bomb", message="it unpacks to too much"))


@pytest.fixture
def unread(store):
    return add_training_file(store, TENANT)


def status_of(store, file_id):
    return store.get_file(TENANT, file_id).status


def let_leases_end(store):
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE files SET lease_until = 1 WHERE lease_until IS NOT NULL")


def let_hints_be_due(store):
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE files SET hint_due_at = 1 WHERE hint_due_at > 0")


def lose(store, times):
    for number in range(times):
        assert store.claim_file(f"r{number}", lease_s=LEASE_S) is not None
        let_leases_end(store)
        found = store.reconcile()
    return found


def refuse(store, file_id):
    store.settle_file(store.claim_file("r", lease_s=LEASE_S, file_id=file_id), HOPELESS)


@pytest.mark.parametrize(
    ("purpose", "status"),
    [
        (FilePurpose.FINE_TUNE, FileStatus.UPLOADED),
        (FilePurpose.EVALUATION, FileStatus.UPLOADED),
        (FilePurpose.CHECKPOINT, FileStatus.PROCESSED),
        (FilePurpose.RESULTS, FileStatus.PROCESSED),
    ],
)
def test_datasets_wait_to_be_read_and_other_files_do_not(store, purpose, status):
    draft = FileDraft(new_id("file"), "a.zip", purpose, "key", 3, "ab" * 32)
    assert store.add_file(TENANT, draft).status is status
    assert (store.claim_file("r", lease_s=LEASE_S) is None) == (status is FileStatus.PROCESSED)


def test_the_oldest_file_is_claimed_first_and_each_once(store, unread):
    second = add_training_file(store, STRANGER)
    claims = [store.claim_file(f"r{n}", lease_s=LEASE_S) for n in range(3)]
    assert [claim and (claim.file.id, claim.tenant) for claim in claims] == [
        (unread, TENANT),
        (second, STRANGER),
        None,
    ]
    assert claims[0].file.sha256 == "ab" * 32
    assert status_of(store, unread) is FileStatus.PROCESSING


def test_of_many_readers_one_gets_the_file(store, unread):
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda n: store.claim_file(f"r{n}", lease_s=LEASE_S), range(8)))
    assert len([claim for claim in claims if claim]) == 1


def test_a_claim_by_id_takes_that_file_and_no_other(store, unread):
    wanted = add_training_file(store, TENANT)
    assert store.claim_file("r", lease_s=LEASE_S, file_id=wanted).file.id == wanted
    assert store.claim_file("s", lease_s=LEASE_S, file_id=wanted) is None
    assert status_of(store, unread) is FileStatus.UPLOADED


def test_what_was_found_is_kept_and_the_file_is_processed(store, unread):
    claim = store.claim_file("r", lease_s=LEASE_S)
    assert store.file_validation(TENANT, unread) is None
    store.settle_file(claim, Findings(3, 2, 1, 1, [FAULT]))
    found, file = store.file_validation(TENANT, unread), store.get_file(TENANT, unread)
    assert (file.status, file.status_details) == (FileStatus.PROCESSED, None)
    assert (found.job_id, found.mode, found.error) == (None, "quarantine", None)
    assert (found.records, found.usable, found.repeated_ids, found.fault_count) == (3, 2, 1, 1)
    assert found.faults == [FAULT] and found.validated_at > 0
    assert store.heartbeat_file(claim, lease_s=LEASE_S) is Directive.LOST


def test_a_file_of_which_nothing_can_be_used_is_in_error_and_says_why(store, unread):
    refuse(store, unread)
    file = store.get_file(TENANT, unread)
    assert (file.status, file.status_details) == (FileStatus.ERROR, "it unpacks to too much")
    assert store.file_validation(TENANT, unread).error.code == "archive_bomb"


def test_a_heartbeat_keeps_a_lease_that_would_have_run_out(store, unread):
    claim = store.claim_file("r", lease_s=0.4)
    for _ in range(4):
        time.sleep(0.2)
        assert store.heartbeat_file(claim, lease_s=0.4) is Directive.CONTINUE
        assert store.reconcile().files_returned == ()


def test_a_file_whose_reader_died_waits_again_is_hinted_at_at_once_and_the_dead_one_is_fenced_off(
    store, unread
):
    old = store.claim_file("r", lease_s=LEASE_S)
    let_leases_end(store)
    found = store.reconcile()
    assert (found.files_returned, found.file_hints, found.files_failed) == ((unread,),) * 2 + ((),)
    new = store.claim_file("s", lease_s=LEASE_S)
    assert store.heartbeat_file(old, lease_s=LEASE_S) is Directive.LOST
    for late in (store.release_file, lambda claim: store.settle_file(claim, HOPELESS)):
        with pytest.raises(LeaseLost):
            late(old)
    store.settle_file(new, Findings(1, 1))
    assert status_of(store, unread) is FileStatus.PROCESSED


def test_a_file_that_kills_three_readers_is_in_error_and_read_no_more(store, unread):
    assert lose(store, 2).files_failed == ()
    assert status_of(store, unread) is FileStatus.UPLOADED
    assert lose(store, 1).files_failed == (unread,)
    file = store.get_file(TENANT, unread)
    assert file.status is FileStatus.ERROR
    assert file.status_details == "Reading this file has ended its worker 3 times in a row."
    assert store.file_validation(TENANT, unread).error.code == "worker_lost"
    assert store.claim_file("r", lease_s=LEASE_S) is None
    assert store.reconcile().file_hints == ()


def test_a_file_that_is_handed_back_has_lost_nothing_and_is_hinted_at_at_once(store, unread):
    for _ in range(4):
        store.release_file(store.claim_file("r", lease_s=LEASE_S))
        assert store.reconcile().file_hints == (unread,)
    assert lose(store, 2).files_failed == ()


def test_a_hint_is_repeated_until_somebody_reads_the_file(store, unread):
    assert store.reconcile().file_hints == (), "who has stored it has just hinted"
    for _ in range(2):
        let_hints_be_due(store)
        assert store.reconcile().file_hints == (unread,)
        assert store.reconcile().file_hints == ()
    let_hints_be_due(store)
    store.claim_file("r", lease_s=LEASE_S)
    assert store.reconcile().file_hints == ()


def test_a_file_may_be_deleted_while_it_is_read(store, unread):
    claim = store.claim_file("r", lease_s=LEASE_S)
    store.delete_file(TENANT, unread)
    assert store.heartbeat_file(claim, lease_s=LEASE_S) is Directive.LOST
    with pytest.raises(LeaseLost):
        store.settle_file(claim, Findings(1, 1))
    with pytest.raises(NotFound):
        store.get_file(TENANT, unread)


def test_a_job_may_be_created_before_its_file_was_read_and_does_not_keep_it_from_being(
    store, unread
):
    add_job(store, training_file=unread)
    claim = store.claim_file("r", lease_s=LEASE_S)
    add_job(store, training_file=unread)
    store.settle_file(claim, Findings(1, 1))
    assert status_of(store, unread) is FileStatus.PROCESSED


def test_no_job_is_created_on_a_file_in_error_and_the_field_is_named(store, unread):
    refuse(store, unread)
    good = add_training_file(store, TENANT)
    evaluation = Evaluation(clean_file=unread)
    for fields, param in (
        ({"training_file": unread}, "/training_file"),
        ({"training_file": good, "evaluation": evaluation}, "/evaluation/clean_file"),
    ):
        with pytest.raises(UnusableFile) as refused:
            store.create_job(TENANT, DefenseJobCreate(model=MODEL, **fields))
        assert refused.value.param == param
    assert store.list_jobs(TENANT).data == []


def test_the_age_of_the_queue_is_that_of_the_oldest_file_that_nobody_reads(store, unread):
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE files SET created_at = created_at - 100")
    assert 100 <= store.statistics().oldest_age_s["disp.cpu"] < 200
    store.claim_file("r", lease_s=LEASE_S)
    assert store.statistics().oldest_age_s["disp.cpu"] == 0


def test_files_are_listed_backwards_too(store):
    ids = [add_training_file(store, TENANT) for _ in range(4)][::-1]
    page = store.list_files(TENANT, before=ids[3], limit=2)
    assert ([file.id for file in page.data], page.has_more) == (ids[1:3], True)
    page = store.list_files(TENANT, before=page.first_id, limit=2)
    assert ([file.id for file in page.data], page.has_more) == (ids[:1], False)
