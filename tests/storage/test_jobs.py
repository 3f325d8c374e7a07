from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event

from schemas.jobs import JobStatus, StageName
from schemas.requests import DefenseJobCreate, Evaluation
from storage.errors import (
    FileInUse,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    NotFound,
    UnknownFile,
    UnknownModel,
    WrongKind,
)
from storage.interfaces import Idempotency, MetricDraft
from tests.storage.world import MODEL, STRANGER, TENANT, add_job, add_training_file

ABSENT = "file_" + "0" * 32


def test_a_new_job_is_queued_with_all_stages_pending_and_one_event(store):
    job = store.get_job(TENANT, add_job(store))
    assert job.status is JobStatus.QUEUED
    assert [step.name for step in job.steps] == list(StageName)
    assert [e.message for e in store.list_events(TENANT, job.id).data] == ["job created"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"training_file": ABSENT}, "/training_file"),
        ({"evaluation": Evaluation(clean_file=ABSENT)}, "/evaluation/clean_file"),
    ],
)
def test_an_unknown_file_is_refused_by_the_name_of_its_field(store, fields, param):
    with pytest.raises(UnknownFile) as refusal:
        add_job(store, **fields)
    assert refusal.value.param == param


def test_another_tenants_file_does_not_exist(store, training_file):
    with pytest.raises(UnknownFile):
        add_job(store, STRANGER, training_file=training_file)


def test_an_unknown_model_is_refused_and_leaves_nothing(store, training_file):
    request = DefenseJobCreate(model="nope", training_file=training_file)
    with pytest.raises(UnknownModel):
        store.create_job(TENANT, request, Idempotency("k", "sha"))
    known = DefenseJobCreate(model=MODEL, training_file=training_file)
    assert not store.create_job(TENANT, known, Idempotency("k", "other")).replayed


def test_a_method_that_needs_another_kind_of_model_is_refused(store, training_file):
    with pytest.raises(WrongKind, match="purmm: autoregressive, tiny: diffusion"):
        add_job(store, training_file=training_file, method={"type": "purmm"})
    assert add_job(store, training_file=training_file, method={"type": "pruning"})


def test_an_idempotency_key_gives_the_first_answer_again(store, training_file):
    request = DefenseJobCreate(model=MODEL, training_file=training_file)
    first = store.create_job(TENANT, request, Idempotency("k", "sha"))
    store.claim("w", lease_s=60.0)
    again = store.create_job(TENANT, request, Idempotency("k", "sha"))
    assert (first.replayed, again.replayed, again.job) == (False, True, first.job)
    with pytest.raises(IdempotencyKeyReused):
        store.create_job(TENANT, request, Idempotency("k", "other"))
    theirs = DefenseJobCreate(model=MODEL, training_file=add_training_file(store, STRANGER))
    assert not store.create_job(STRANGER, theirs, Idempotency("k", "sha")).replayed


def test_rivals_with_one_idempotency_key_create_one_job(store, training_file):
    request = DefenseJobCreate(model=MODEL, training_file=training_file)

    def attempt(_):
        try:
            return store.create_job(TENANT, request, Idempotency("k", "sha"))
        except IdempotencyInFlight:
            return None

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for answer in pool.map(attempt, range(8)) if answer is not None]
    assert len({answer.job.id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_follow_one_another_without_gap_or_repeat(store, order):
    jobs = [add_job(store) for _ in range(5)]
    add_job(store, STRANGER)
    seen, after, more = [], None, True
    while more:
        page = store.list_jobs(TENANT, after=after, limit=2, order=order)
        seen += [job.id for job in page.data]
        after, more = page.last_id, page.has_more
    assert seen == (jobs if order == "asc" else jobs[::-1])


def test_listings_filter_by_status_and_model(store):
    queued, cancelled = add_job(store), add_job(store)
    store.request_cancel(TENANT, cancelled)
    listed = store.list_jobs(TENANT, status=JobStatus.QUEUED, model=MODEL).data
    assert [job.id for job in listed] == [queued]
    assert store.list_jobs(TENANT, model="other").data == []


def test_events_are_numbered_without_gaps_and_paged_by_the_last_seen(store):
    job_id = add_job(store)
    for _ in range(3):
        store.release(store.claim("w", lease_s=60.0))
    events = store.list_events(TENANT, job_id).data
    assert [event.seq for event in events] == list(range(1, 8))
    page = store.list_events(TENANT, job_id, after=events[2].id, limit=2)
    assert ([event.seq for event in page.data], page.has_more) == ([4, 5], True)


def test_metrics_are_paged_by_the_last_id_of_a_page(store):
    job_id = add_job(store)
    claim = store.claim("w", lease_s=60.0)
    drafts = [MetricDraft(StageName.FINE_TUNE, step, {"loss": 1 / (step + 1)}) for step in range(5)]
    store.record(claim, metrics=[*drafts, MetricDraft(StageName.RETRAIN, 0, {"loss": 9.0})])
    first = store.list_metrics(TENANT, job_id, stage=StageName.FINE_TUNE, limit=3)
    rest = store.list_metrics(TENANT, job_id, stage=StageName.FINE_TUNE, after=first.last_id)
    assert [metric.step for metric in [*first.data, *rest.data]] == [0, 1, 2, 3, 4]
    assert (first.has_more, rest.has_more) == (True, False)


@pytest.mark.parametrize(
    "look",
    [
        lambda store, job_id: store.get_job(STRANGER, job_id),
        lambda store, job_id: store.request_cancel(STRANGER, job_id),
        lambda store, job_id: store.list_events(STRANGER, job_id),
        lambda store, job_id: store.list_metrics(STRANGER, job_id),
        lambda store, job_id: store.published_manifest(STRANGER, job_id),
    ],
)
def test_a_job_does_not_exist_for_another_tenant(store, look):
    with pytest.raises(NotFound):
        look(store, add_job(store))


def test_a_file_is_kept_while_an_unfinished_job_reads_it(store, training_file):
    clean_file = add_training_file(store, TENANT)
    evaluation = Evaluation(clean_file=clean_file)
    job_id = add_job(store, training_file=training_file, evaluation=evaluation)
    for file_id in (training_file, clean_file):
        with pytest.raises(FileInUse):
            store.delete_file(TENANT, file_id)
    store.request_cancel(TENANT, job_id)
    with pytest.raises(NotFound):
        store.delete_file(STRANGER, training_file)
    assert store.delete_file(TENANT, training_file).key.endswith(training_file)
    with pytest.raises(NotFound):
        store.get_file(TENANT, training_file)


def statements(store, ask):
    """What the store says to the database while it is asked."""
    said = []

    def keep(connection, cursor, statement, parameters, *_):
        said.append((statement, parameters))

    event.listen(store._engine, "before_cursor_execute", keep)
    ask()
    event.remove(store._engine, "before_cursor_execute", keep)
    return said


def test_a_list_takes_as_many_queries_for_many_jobs_as_for_one(store):
    first, second = add_job(store), add_job(store)
    one = statements(store, lambda: store.list_jobs(TENANT, limit=1))
    many = statements(store, lambda: store.list_jobs(TENANT, limit=20))
    assert len(many) == len(one)
    found = store.list_jobs(TENANT).data
    assert found == [store.get_job(TENANT, second), store.get_job(TENANT, first)]


def test_jobs_of_a_status_are_found_without_reading_the_tenants_others(store):
    if store._engine.dialect.name != "sqlite":
        pytest.skip("the plan of a table this small is PostgreSQL's own affair")
    add_job(store)
    said = statements(store, lambda: store.list_jobs(TENANT, status=JobStatus.FAILED))
    ((statement, parameters),) = [s for s in said if "FROM jobs" in s[0] and "LIMIT" in s[0]]
    with store._engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    plan = " ".join(row[-1] for row in rows)
    assert "USING INDEX jobs_by_tenant_status" in plan and "TEMP B-TREE" not in plan, plan
