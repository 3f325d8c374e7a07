"""Lists of samples, paged in SQL by their indexes alone."""

import pytest
from sqlalchemy import event

from storage import migrate
from storage.connect import open_job_store
from storage.errors import LeaseLost, NotFound
from storage.interfaces import Claim, SampleEntry, Shown
from tests.storage.world import STRANGER, TENANT, add_job, register_tiny

STATUSES = ("rewritten", "rewritten", "kept", "quarantined")


def entry(position, score=None, **changes):
    found = {
        "position": position,
        "sample_id": f"s{position}",
        "status": STATUSES[position % 4],
        "verdict": ("changed", "unchanged", None, None)[position % 4],
        "flagged": score is not None and score > 5,
        "score": score,
        "start": 100 * position,
        "bytes": 99,
        "said": "before",
        "says": "after",
    }
    return SampleEntry(**found | changes)


def claimed(store):
    job_id = add_job(store)
    return store.claim("worker", lease_s=60.0, job_id=job_id)


def positions(store, claim, **query):
    entries, more = store.list_sample_entries(TENANT, claim.job_id, **query)
    return [e.position for e in entries], more


def test_the_most_suspicious_come_first_and_the_others_in_their_order(store):
    claim = claimed(store)
    scores = [1.0, 9.0, None, 9.0, None, -2.0]
    store.index_samples(claim, [entry(i, score) for i, score in enumerate(scores)])
    assert positions(store, claim) == ([1, 3, 0, 5, 2, 4], False)
    assert positions(store, claim, limit=2) == ([1, 3], True)
    assert positions(store, claim, after=3, limit=3) == ([0, 5, 2], True)
    assert positions(store, claim, after=4) == ([], False)
    (first, *_), _ = store.list_sample_entries(TENANT, claim.job_id)
    assert first == entry(1, 9.0), "nothing is lost on the way"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [("flagged", [3, 1]), ("changed", [0, 4]), ("unchanged", [1, 5]), ("rewritten", [1, 0, 4, 5]),
     ("kept", [2]), ("quarantined", [3]), ("removed", [])],
)  # fmt: skip
def test_a_filter_keeps_the_order(store, shown, expected):
    claim = claimed(store)
    scores = [1.0, 8.0, None, 9.0, 0.5, 0.2]
    store.index_samples(claim, [entry(i, score) for i, score in enumerate(scores)])
    assert positions(store, claim, shown=Shown(shown)) == (expected, False)


def test_neighbours_are_those_of_the_list(store):
    claim = claimed(store)
    store.index_samples(claim, [entry(i, score) for i, score in enumerate([1.0, 9.0, None, 9.0])])
    found = [store.sample_neighbours(TENANT, claim.job_id, i) for i in (1, 3, 0, 2)]
    assert found == [(None, 3), (1, 0), (3, 2), (0, None)]


def test_another_attempt_replaces_what_an_earlier_one_wrote(store):
    claim = claimed(store)
    store.index_samples(claim, (entry(i) for i in range(2500)))
    store.index_samples(claim, [entry(7)])
    assert positions(store, claim) == ([7], False)
    with pytest.raises(LeaseLost):
        store.index_samples(Claim(claim.job_id, TENANT, 9, "other"), [entry(1)])


def test_samples_are_their_tenants_and_go_with_the_job(store):
    claim = claimed(store)
    store.index_samples(claim, [entry(0)])
    for ask in (
        lambda: store.list_sample_entries(STRANGER, claim.job_id),
        lambda: store.get_sample_entry(STRANGER, claim.job_id, 0),
        lambda: store.sample_neighbours(STRANGER, claim.job_id, 0),
        lambda: store.get_sample_entry(TENANT, claim.job_id, 1),
        lambda: store.list_sample_entries(TENANT, claim.job_id, after=1),
    ):
        with pytest.raises(NotFound):
            ask()
    store.request_cancel(TENANT, claim.job_id)
    store.mark_cancelled(claim)
    store.delete_job(TENANT, claim.job_id)
    with pytest.raises(NotFound):
        store.get_sample_entry(TENANT, claim.job_id, 0)


@pytest.mark.parametrize("shown", list(Shown))
def test_a_page_is_read_along_an_index_without_sorting(tmp_path, shown):
    """In SQLite: the plan of a table this small is PostgreSQL's own affair."""
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    migrate.upgrade(url)
    store = open_job_store(url)
    register_tiny(store)
    claim = claimed(store)
    store.index_samples(claim, [entry(i, float(i)) for i in range(20)])
    said = []

    def keep(connection, cursor, statement, parameters, *_):
        if "FROM samples" in statement and "LIMIT" in statement:
            said.append((statement, parameters))

    event.listen(store._engine, "before_cursor_execute", keep)
    store.list_sample_entries(TENANT, claim.job_id, shown=shown, after=10, limit=5)
    ((statement, parameters),) = said
    with store._engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    plan = " ".join(row[-1] for row in rows)
    assert "USING INDEX samples_by_" in plan and "TEMP B-TREE" not in plan, plan
    store.close()


def test_curves_and_last_events_are_read_in_part(store):
    from schemas.jobs import StageName
    from storage.interfaces import EventDraft, MetricDraft

    claim = claimed(store)
    metrics = [MetricDraft(StageName.FINE_TUNE, i, {"loss": 1.0}) for i in range(1000)]
    events = [EventDraft(f"event {i}") for i in range(50)]
    store.record(claim, metrics=metrics, events=events)
    found = store.metric_curve(TENANT, claim.job_id, most=100)
    assert len(found) == 100 and found[-1].step == 999
    assert [m.step for m in found] == sorted(m.step for m in found)
    last = store.last_events(TENANT, claim.job_id, limit=3)
    assert [e.message for e in last] == ["event 49", "event 48", "event 47"]
