"""The guard server over a tiny random model."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from disp_engine import registry
from disp_engine.errors import EngineError, SampleError
from disp_engine.guards.guard import Guard, Guarded, Question, Verdict
from disp_engine.records import Turn
from tests.api.live import listening
from tests.engine.causal_models import causal_model
from tests.engine.models import picture
from workers.guard.app import Served, create_app
from workers.guard.desk import Desk

LONGEST = 6


def data_url(seed: int = 0) -> str:
    png = io.BytesIO()
    picture(seed, (30, 24)).save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def message(text: str = "What?", seed: int = 0) -> dict[str, Any]:
    url = {"type": "image_url", "image_url": {"url": data_url(seed)}}
    return {"role": "user", "content": [url, {"type": "text", "text": text}]}


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [message()]} | changes


def question(text: str = "What?", seed: int = 0) -> Question:
    return Question((Turn("human", f"<image>\n{text}"),), (picture(seed, (30, 24)),))


@pytest.fixture
def guard() -> Guard:
    return registry.guard("purmm", causal_model("llava_1_5"))


@pytest.fixture
def server(guard: Guard) -> Iterator[TestClient]:
    with TestClient(create_app(guard, Served("tiny", "purmm", LONGEST), batch=4)) as client:
        yield client


def test_an_answer_comes_with_the_verdict(server: TestClient, guard: Guard) -> None:
    found = server.post("/v1/chat/completions", json=body()).json()
    (expected,) = guard.answer([question()], LONGEST)
    assert found["choices"][0]["message"] == {"role": "assistant", "content": expected.text}
    assert found["object"] == "chat.completion" and found["model"] == "tiny"
    regions = found["guard"].pop("masked_regions")
    assert found["guard"] == {"guard": "purmm", "flagged": None, "score": None}
    assert [(r["row"], r["column"]) for r in regions] == [
        (cell.row, cell.column) for cell in expected.verdict.removed
    ]
    assert regions and {(r["rows"], r["columns"]) for r in regions} == {(4, 4)}
    usage = found["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == expected.answered > 0
    assert usage["prompt_tokens"] == expected.asked > 16


def test_an_answer_is_cut_where_it_is_asked_to_be(server: TestClient) -> None:
    found = server.post("/v1/chat/completions", json=body(max_tokens=2)).json()
    assert found["usage"]["completion_tokens"] == 2
    assert found["choices"][0]["finish_reason"] == "length"


def test_a_stream_tells_the_verdict_first_and_adds_up_to_the_answer(server: TestClient) -> None:
    whole = server.post("/v1/chat/completions", json=body()).json()
    lines = server.post("/v1/chat/completions", json=body(stream=True)).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert events[0]["guard"] == whole["guard"]
    assert not any("guard" in event for event in events[1:])
    said = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert said == whole["choices"][0]["message"]["content"]
    assert events[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert len({event["id"] for event in events}) == 1


def test_conversations_keep_their_turns_and_a_systems_text(
    guard: Guard, server: TestClient
) -> None:
    messages = [
        {"role": "system", "content": "Be short."}, message(),
        {"role": "assistant", "content": "A dog."}, {"role": "user", "content": "Where?"},
    ]  # fmt: skip
    found = server.post("/v1/chat/completions", json=body(messages=messages)).json()
    turns = (
        Turn("human", "Be short.\n<image>\nWhat?"), Turn("gpt", "A dog."), Turn("human", "Where?"),
    )  # fmt: skip
    (expected,) = guard.answer([Question(turns, question().images)], LONGEST)
    assert found["choices"][0]["message"]["content"] == expected.text


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "What?"}]}, "with a picture"),
        ({"messages": [message(), message()]}, "take turns"),
        ({"messages": [message(), {"role": "assistant", "content": "A."}]}, "must be the user's"),
        ({"messages": [message("<image>")]}, "must not hold"),
        ({"temperature": 0.7}, "greedy"),
        ({"n": 2}, "n:"),
        ({"stop": ["."]}, "stop"),
        ({"tools": [{"type": "function"}]}, "is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [message("x" * 600)]}, "positions"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_refused(
    server: TestClient, changes: dict[str, Any], why: str, stream: bool
) -> None:
    found = server.post("/v1/chat/completions", json=body(stream=stream) | changes)
    assert found.status_code == 400
    assert found.json()["error"]["type"] == "invalid_request_error"
    assert why in found.json()["error"]["message"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://example.org/cat.png", "nothing is fetched"),
        ("file:///etc/passwd", "nothing is fetched"),
        ("data:text/html;base64,AAAA", "nothing is fetched"),
        ("data:image/png;base64,no!", "not base64"),
        ("data:image/png;base64,AAAA", "no PNG, JPEG or WebP"),
    ],
)
def test_pictures_come_within_the_request_or_not_at_all(
    server: TestClient, url: str, why: str
) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    found = server.post(
        "/v1/chat/completions", json=body(messages=[{"role": "user", "content": [part]}])
    )
    assert found.status_code == 400 and why in found.json()["error"]["message"]


def test_no_more_pictures_are_taken_than_are_needed(server: TestClient) -> None:
    parts = message()["content"][:1] * 9
    found = server.post(
        "/v1/chat/completions", json=body(messages=[{"role": "user", "content": parts}])
    )
    assert found.status_code == 400 and "at most 8" in found.json()["error"]["message"]


def test_bytes_that_are_no_request_are_refused(server: TestClient) -> None:
    found = server.post("/v1/chat/completions", content=b"{")
    assert found.status_code == 400
    large = b"x" * (33 * 2**20)
    assert server.post("/v1/chat/completions", content=large).status_code == 400


def test_openais_own_client_reads_answer_and_verdict(guard: Guard) -> None:
    with listening(create_app(guard, Served("tiny", "purmm", LONGEST), batch=4)) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        messages: Any = [message()]
        found = client.chat.completions.create(model="tiny", messages=messages)
        stream = client.chat.completions.create(model="tiny", messages=messages, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert [model.id for model in client.models.list()] == ["tiny"]
        client.close()
    assert found.choices[0].message.content == "".join(pieces)
    assert found.model_extra is not None and found.model_extra["guard"]["guard"] == "purmm"


class Slow(Guard):
    """Answers with the question, and waits before its first batch; one question is a bad one."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[int] = []

    def judge(self, prompts: Any, length: int) -> Any:
        raise NotImplementedError

    def answer(self, questions: Any, length: int) -> list[Guarded]:
        self.batches.append(len(questions))
        if len(self.batches) == 1:
            self.go.wait(30)
        texts = [one.turns[0].text for one in questions]
        if any("bad" in text for text in texts):
            raise SampleError("a bad question")
        return [Guarded(text, Verdict()) for text in texts]


def test_questions_that_wait_together_are_answered_together() -> None:
    guard = Slow()
    desk = Desk(guard, batch=3)
    first = desk.answer(question("first"), 4)
    while not guard.batches:
        time.sleep(0.01)
    waiting = [desk.answer(question(str(n)), 4) for n in range(4)]
    other = desk.answer(question("longer"), 9)
    guard.go.set()
    answers = [future.result(30).text for future in (first, *waiting, other)]
    assert answers == [f"<image>\n{text}" for text in ("first", "0", "1", "2", "3", "longer")]
    assert guard.batches == [1, 3, 1, 1], "of one length, and no more than three"
    desk.close()


def test_who_comes_when_too_many_wait_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.guard.desk.MOST_WAITING", 2)
    guard = Slow()
    desk = Desk(guard, batch=3)
    desk.answer(question("first"), 4)
    while not guard.batches:
        time.sleep(0.01)
    kept = [desk.answer(question(str(n)), 4) for n in range(2)]
    with pytest.raises(EngineError, match="ask again later"):
        desk.answer(question("late"), 4)
    guard.go.set()
    assert len([future.result(30) for future in kept]) == 2
    desk.close()


def test_a_bad_question_does_not_spoil_its_neighbours() -> None:
    guard = Slow()
    desk = Desk(guard, batch=3)
    desk.answer(question("first"), 4)
    while not guard.batches:
        time.sleep(0.01)
    futures: list[Future[Guarded]] = [desk.answer(question(t), 4) for t in ("a", "bad", "b")]
    guard.go.set()
    assert futures[0].result(30).text.endswith("a") and futures[2].result(30).text.endswith("b")
    with pytest.raises(SampleError):
        futures[1].result(30)
    desk.close()
    with pytest.raises(Exception, match="shutting down"):
        desk.answer(question(), 4)
