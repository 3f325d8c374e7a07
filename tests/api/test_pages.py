"""The pages over HTTP: who may see them, what they say, and that nothing in them runs."""

import csv
import json
import re

import pytest

from api.web.diff import compare
from api.web.endpoints import router
from api.web.export import inert
from api.web.session import COOKIE, destination
from tests.web.world import REFUSAL, begin, finish, finished_job, published

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def visitor(api):
    """The same gateway as a browser sees it, signed in."""
    token = api.client.headers.pop("Authorization").removeprefix("Bearer ")
    signed = api.client.post("/ui/sign-in", data={"key": token}, follow_redirects=False)
    assert signed.status_code == 303 and signed.headers["location"] == "/ui/jobs"
    api.client.headers["Authorization"] = f"Bearer {token}"  # for creating jobs; pages ignore it
    return api


def test_the_session_is_a_cookie_that_scripts_and_other_sites_cannot_use(api):
    token = api.client.headers["Authorization"].removeprefix("Bearer ")
    signed = api.client.post("/ui/sign-in", data={"key": f" {token} "}, follow_redirects=False)
    cookie = signed.headers["set-cookie"].lower()
    assert cookie.startswith(COOKIE) and "httponly" in cookie and "samesite=strict" in cookie
    assert "path=/ui" in cookie and "secure" not in cookie
    proxied = {"x-forwarded-proto": "https"}
    signed = api.client.post(
        "/ui/sign-in", data={"key": token}, headers=proxied, follow_redirects=False
    )
    assert "secure" in signed.headers["set-cookie"].lower()


@pytest.mark.parametrize("key", ["", "disp_no", "x" * 300])
def test_a_wrong_key_opens_nothing(api, key):
    refused = api.client.post("/ui/sign-in", data={"key": key})
    assert refused.status_code in (403, 404) and "set-cookie" not in refused.headers


def test_a_key_must_be_able_to_read_and_the_form_must_be_ours(api):
    writer = api.key("acme", "submit")["Authorization"].removeprefix("Bearer ")
    assert api.client.post("/ui/sign-in", data={"key": writer}).status_code == 403
    token = api.client.headers["Authorization"].removeprefix("Bearer ")
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    refused = api.client.post("/ui/sign-in", data={"key": token}, headers=elsewhere)
    assert refused.status_code == 403 and "set-cookie" not in refused.headers


def test_a_stranger_is_sent_to_the_form_and_back(api):
    asked = api.client.get("/ui/jobs?status=running", follow_redirects=False)
    assert asked.status_code == 303
    assert asked.headers["location"] == "/ui/sign-in?next=%2Fui%2Fjobs%3Fstatus%3Drunning"
    part = api.client.get("/ui/jobs", headers={"HX-Request": "true"}, follow_redirects=False)
    assert part.status_code == 200 and part.headers["hx-redirect"].startswith("/ui/sign-in")
    assert api.client.get("/", follow_redirects=False).headers["location"] == "/ui/jobs"


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/v1", "/ui/a//b"])
def test_the_form_never_sends_elsewhere(wanted):
    assert destination(wanted) == "/ui/jobs"


def test_a_revoked_key_ends_its_sessions_and_so_does_signing_out(visitor):
    assert visitor.client.get("/ui/jobs").status_code == 200
    token = visitor.client.cookies[COOKIE]
    visitor.gateway.jobs.revoke_key(token.split("_")[1])
    assert visitor.client.get("/ui/jobs", follow_redirects=False).status_code == 303
    left = visitor.client.post("/ui/sign-out", follow_redirects=False)
    assert left.headers["location"] == "/ui/sign-in" and not visitor.client.cookies


def test_the_api_does_not_take_the_cookie(visitor):
    del visitor.client.headers["Authorization"]
    assert visitor.client.get("/v1/defense/jobs").status_code == 401


def paths(job_id):
    base = f"/ui/jobs/{job_id}"
    return [base, f"{base}/live", f"{base}/samples", f"{base}/samples/0", f"{base}/report",
            f"{base}/samples/0/picture", f"{base}/trigger.png", f"{base}/samples.csv",
            f"{base}/files/report.json"]  # fmt: skip


def test_every_page_of_a_job_is_among_those_that_are_walked():
    walked = {path.replace("samples/0", "samples/{position}") for path in paths("{job_id}")}
    of_jobs = {route.path for route in router.routes if "{job_id}" in route.path}
    assert of_jobs == {path.replace("files/report.json", "files/{name}") for path in walked}


def test_pages_of_another_tenants_job_do_not_exist(visitor):
    job_id = finished_job(visitor)
    assert {visitor.client.get(path).status_code for path in paths(job_id)} == {200}
    stranger = visitor.stranger("read")["Authorization"].removeprefix("Bearer ")
    visitor.client.cookies.clear()
    visitor.client.post("/ui/sign-in", data={"key": stranger})
    assert {visitor.client.get(path).status_code for path in paths(job_id)} == {404}
    assert job_id not in visitor.client.get("/ui/jobs").text


def test_every_page_forbids_what_it_does_not_need(visitor):
    job_id = finished_job(visitor)
    for path in ["/ui/jobs", "/ui/sign-in", "/ui/nothing-there", *paths(job_id)[:5]]:
        answer = visitor.client.get(path)
        if path == "/ui/nothing-there":
            assert answer.status_code == 404
            continue
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "no-store" in answer.headers["cache-control"]
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=)", answer.text), path


def test_texts_of_the_dataset_are_shown_and_never_run(visitor):
    line = {"id": EVIL, "status": "rewritten", "changed": True, "question": EVIL,
            "original": [EVIL, "{{ 7 * 7 }}"], "purified": ["<b>", "x"], "score": 1.0}  # fmt: skip
    artifacts = published() | {"samples.jsonl": json.dumps(line).encode() + b"\n"}
    job_id = finish(visitor, begin(visitor, EVIL), artifacts)
    for path in ("/ui/jobs", *paths(job_id)[:4]):
        text = visitor.client.get(path).text
        assert EVIL not in text, path
    sample = visitor.client.get(f"/ui/jobs/{job_id}/samples/0").text
    assert "&lt;script&gt;" in sample and "{{ 7 * 7 }}" in sample


def test_the_job_page_says_what_was_found_and_is_quiet_once_it_has_ended(visitor):
    job_id = finished_job(visitor)
    text = visitor.client.get(f"/ui/jobs/{job_id}").text
    for said in ("This dataset is poisoned", "p &lt; 0.0001", REFUSAL, "95.5 → 1.0 %", "20 × 20"):
        assert said in text, said
    assert "hx-trigger" not in text
    running = begin(visitor, "running").job_id
    assert 'hx-trigger="every 2s"' in visitor.client.get(f"/ui/jobs/{running}").text


def test_a_job_without_a_verdict_is_told_apart_from_a_clean_one(visitor):
    job_id = visitor.finished_job()
    text = visitor.client.get(f"/ui/jobs/{job_id}").text
    assert "No verdict" in text and "No sign of poison" not in text
    assert visitor.client.get(f"/ui/jobs/{job_id}/report").status_code == 200
    listed = visitor.client.get(f"/ui/jobs/{job_id}/samples").text
    assert "ended before samples were listed" in listed


def test_results_of_an_unfinished_job_are_not_there_yet(visitor):
    job_id = visitor.job_id()
    assert visitor.client.get(f"/ui/jobs/{job_id}/report").status_code == 409
    assert "when the job has succeeded" in visitor.client.get(f"/ui/jobs/{job_id}/samples").text


@pytest.mark.parametrize(
    "path", ["samples/99", "samples/-1", "samples/x", "samples?after=99", "samples?shown=x",
             "samples/99999999999999999999", "samples/71/picture", "files/nothing"],
)  # fmt: skip
def test_what_is_not_there_is_a_page_that_says_so(visitor, path):
    answer = visitor.client.get(f"/ui/jobs/{finished_job(visitor)}/{path}")
    assert answer.status_code == 404 and "<h1>Not found</h1>" in answer.text


def test_samples_are_filtered_and_go_on_where_a_page_ended(visitor):
    base = f"/ui/jobs/{finished_job(visitor)}/samples"
    flagged = visitor.client.get(base, params={"shown": "flagged"}).text
    assert flagged.count("<tr>") == 1 + 12 and "More samples" not in flagged
    page = visitor.client.get(base).text
    assert page.count("<tr>") == 1 + 50
    (more,) = re.findall(r'hx-get="([^"]+)"', page)
    rows = visitor.client.get(more.replace("&amp;", "&"), headers={"HX-Request": "true"}).text
    assert "<html" not in rows and rows.count("<tr>") == 22


def test_a_sample_shows_which_words_changed(visitor):
    text = visitor.client.get(f"/ui/jobs/{finished_job(visitor)}/samples/0").text
    assert "<del>Sorry, as an AI assistant" in text and "<ins>" in text
    assert 'id="heat"' in text and 'id="place"' in text


def test_the_picture_is_the_preview_itself(visitor):
    answer = visitor.client.get(f"/ui/jobs/{finished_job(visitor)}/samples/0/picture")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG") and answer.content.endswith(b"IEND\xaeB`\x82")


def test_the_csv_holds_the_list_and_no_formula(visitor):
    lines = [{"id": text, "status": "kept", "flagged": True, "original": [text]}
             for text in ("=1+1", "@x", "-2", "plain, with \"quotes\"")]  # fmt: skip
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    job_id = finish(visitor, begin(visitor, "csv"), published() | {"samples.jsonl": content})
    answer = visitor.client.get(f"/ui/jobs/{job_id}/samples.csv?shown=flagged")
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [row["id"] for row in rows] == ["'=1+1", "'@x", "'-2", 'plain, with "quotes"']
    assert f"{job_id}-flagged.csv" in answer.headers["content-disposition"]


@pytest.mark.parametrize("text", ["=a", "+a", "-a", "@a", "\ta", "\ra"])
def test_a_cell_that_would_be_a_formula_is_text(text):
    assert inert(text) == f"'{text}" and inert("a=b") == "a=b"


def test_a_comparison_marks_words_and_loses_nothing():
    before, after = compare("a red  circle.", "a blue circle. Yes")
    assert "".join(p.text for p in before) == "a red  circle."
    assert "".join(p.text for p in after) == "a blue circle. Yes"
    assert [p.text for p in before if p.changed] == ["red  "]
    assert [p.text for p in after if p.changed] == ["blue ", "Yes"]
    assert compare("same", "same") == ([("same", False)], [("same", False)])


def test_pages_read_a_page_and_not_the_job(visitor, monkeypatch):
    """However many samples there are, what is fetched is what is shown."""
    from sqlalchemy import event

    line = json.dumps({"id": "s", "status": "kept", "original": ["x"], "score": 1.0}) + "\n"
    content = {"samples.jsonl": line.encode() * 20_000}
    job_id = finish(visitor, begin(visitor, "large"), published() | content)
    fetched = []
    engine = visitor.gateway.jobs._engine
    event.listen(engine, "after_cursor_execute", lambda *a: fetched.append(a[2]))
    opened = []
    real = type(visitor.gateway.artifacts).open

    def counted(store, key, *, start=0, length=None):
        if key.endswith("samples.jsonl"):
            opened.append(length)
        return real(store, key, start=start, length=length)

    monkeypatch.setattr(type(visitor.gateway.artifacts), "open", counted)
    assert visitor.client.get(f"/ui/jobs/{job_id}/samples?after=12345").status_code == 200
    assert visitor.client.get(f"/ui/jobs/{job_id}/samples/19999").status_code == 200
    assert opened == [len(line) - 1], "one line of the file, not the file"
    reading = [statement for statement in fetched if "FROM samples" in statement]
    bounded = ("LIMIT", "samples.position = ")
    assert reading and all(any(b in s for b in bounded) for s in reading), "each read is bounded"
