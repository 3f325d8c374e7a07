import io

import pytest
from PIL import Image

from api.samples import service
from api.samples.picture import CELL
from storage.keys import artifact_key
from tests.api.world import SAMPLES, assert_problem

JOBS = "/v1/defense/jobs"


@pytest.fixture
def samples(api):
    """List samples of a finished job."""
    job_id = api.finished_job()

    def get(what="", **query):
        return api.client.get(f"{JOBS}/{job_id}/samples{what}", params=query)

    return get


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({}, ["s0", "a/b c", "s2", "s3"]),
        ({"status": "rewritten"}, ["s0", "a/b c"]),
        ({"status": "quarantined"}, ["s3"]),
        ({"verdict": "changed"}, ["s0"]),
        ({"verdict": "unchanged"}, ["a/b c"]),
        ({"min_score": 4.5}, ["s0"]),
        ({"min_score": 4.6}, []),
        ({"min_score": 0, "status": "passed_through"}, []),
        ({"verdict": "changed", "status": "passed_through"}, []),
    ],
)
def test_samples_are_listed_in_their_order_and_filtered(samples, query, ids):
    page = samples(**query).json()
    assert [sample["id"] for sample in page["data"]] == ids and not page["has_more"]


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_pages_follow_one_another_whatever_the_chunks(samples, monkeypatch, limit, chunk):
    monkeypatch.setattr("storage.artifacts.CHUNK", chunk)
    seen, query, more = [], {"limit": limit}, True
    while more:
        page = samples(**query).json()
        assert len(page["data"]) <= limit
        seen += [sample["id"] for sample in page["data"]]
        query["after"], more = page["last_id"], page["has_more"]
    assert seen == [sample["id"] for sample in SAMPLES]
    assert samples(**query).json()["data"] == []


@pytest.mark.parametrize("after", [1, 5, 10**17])
def test_a_cursor_that_no_page_gave_is_not_found(samples, after):
    assert_problem(samples(after=after), 404, "not_found")


def test_a_page_stops_reading_after_a_while_and_says_that_there_is_more(samples, monkeypatch):
    monkeypatch.setattr(service, "MAX_SCANNED_BYTES", 10)
    page = samples(status="quarantined").json()
    assert (page["data"], page["has_more"]) == ([], True)
    assert samples(status="quarantined", after=page["last_id"]).json()["has_more"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["id"])
def test_a_sample_is_found_by_its_own_id(samples, sample):
    found = samples(f"/{sample['id']}").json()
    assert found["object"] == "defense.job.sample"
    assert {name: found[name] for name in sample if name != "changed"} == {
        name: value for name, value in sample.items() if name != "changed"
    }
    verdicts = {True: "changed", False: "unchanged", None: None}
    assert found["verdict"] == verdicts[sample.get("changed")]


def test_an_unknown_sample_or_an_unfinished_job_has_none(api, samples):
    assert_problem(samples("/nobody"), 404, "not_found")
    unfinished = f"{JOBS}/{api.job_id()}/samples"
    assert_problem(api.client.get(unfinished), 409, "job_not_finished")
    assert_problem(api.client.get(f"{unfinished}/s0"), 409, "job_not_finished")


def test_a_page_of_a_large_file_is_read_without_the_rest(api, monkeypatch):
    job_id = api.finished_job()
    key = artifact_key("acme", job_id, 1, "samples.jsonl")
    line = b'{"id": "s", "status": "passed_through"}\n'
    api.gateway.artifacts.put_stream(key, (line * 25_000 for _ in range(8)))
    read = []
    real = type(api.gateway.artifacts).open

    def counted(store, key, **span):
        for chunk in real(store, key, **span):
            read.append(len(chunk))
            yield chunk

    monkeypatch.setattr(type(api.gateway.artifacts), "open", counted)
    page = api.client.get(f"{JOBS}/{job_id}/samples", params={"limit": 2}).json()
    assert len(page["data"]) == 2 and sum(read) < 3 << 20


def test_the_map_of_a_sample_is_numbers_or_a_picture_of_the_same(samples):
    found = samples("/s0/saliency.json").json()
    assert found["object"] == "defense.job.sample.saliency" and found["sample_id"] == "s0"
    assert (found["rows"], found["columns"]) == (2, 2)
    assert found["values"] == [[0.0, 1.0], [pytest.approx(1 / 3), 0.0]]
    answer = samples("/s0/saliency.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    picture = Image.open(io.BytesIO(answer.content))
    picture.load()
    assert (picture.mode, picture.size) == ("L", (2 * CELL, 2 * CELL))
    corners = [picture.getpixel(at) for at in ((0, 0), (31, 15), (15, 31), (16, 16))]
    assert corners == [0, 255, 85, 0]


@pytest.mark.parametrize("kind", ["json", "png"])
def test_a_sample_without_a_map_or_a_job_without_an_end_has_none(api, samples, kind):
    assert_problem(samples(f"/a/b c/saliency.{kind}"), 404, "not_found")
    assert_problem(samples(f"/nobody/saliency.{kind}"), 404, "not_found")
    unfinished = f"{JOBS}/{api.job_id()}/samples/s0/saliency.{kind}"
    assert_problem(api.client.get(unfinished), 409, "job_not_finished")
