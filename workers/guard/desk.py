"""Questions wait at a desk; one thread answers them, those that wait together in one batch."""

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue

from disp_engine.errors import EngineError
from disp_engine.guards.guard import Guard, Guarded, Piece, Question, Verdict

MOST_WAITING = 256
"""Questions; further ones are turned away."""


@dataclass(frozen=True)
class Opening:
    """How a streamed answer begins."""

    verdict: Verdict
    asked: int


@dataclass(frozen=True)
class Whole:
    """A question whose answer is wanted at once."""

    question: Question
    length: int
    answer: Future[Guarded] = field(default_factory=Future)


@dataclass(frozen=True)
class Stream:
    """A question whose answer is wanted piece by piece.

    `pieces` begin with an opening and end with None; an exception stands in place of what it
    prevented. Whoever reads them no longer sets `left`.
    """

    question: Question
    length: int
    pieces: "SimpleQueue[Opening | Piece | Exception | None]" = field(default_factory=SimpleQueue)
    left: threading.Event = field(default_factory=threading.Event)


class Desk:
    """Owns the guard's model; `batch` bounds the questions answered together."""

    def __init__(self, guard: Guard, batch: int) -> None:
        self._guard, self._batch = guard, batch
        self._waiting: deque[Whole | Stream] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="guard", daemon=True)
        self._thread.start()

    def answer(self, question: Question, length: int) -> Future[Guarded]:
        """Wait for an answer."""
        whole = Whole(question, length)
        self._put(whole)
        return whole.answer

    def stream(self, question: Question, length: int) -> Stream:
        """Wait for an answer piece by piece."""
        stream = Stream(question, length)
        self._put(stream)
        return stream

    def close(self) -> None:
        """Answer nothing more; whoever still waits is told so."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        for item in self._waiting:
            _fail(item, EngineError("The guard is shutting down."))

    def _put(self, item: Whole | Stream) -> None:
        with self._changed:
            if self._closed:
                raise EngineError("The guard is shutting down.")
            if len(self._waiting) >= MOST_WAITING:
                raise EngineError("Too many questions wait; ask again later.")
            self._waiting.append(item)
            self._changed.notify()

    def _work(self) -> None:
        while (items := self._next()) is not None:
            if isinstance(items, Stream):
                self._stream(items)
            else:
                self._answer(items)

    def _next(self) -> "list[Whole] | Stream | None":
        """The first that waits, with all others that fit into its batch."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            first = self._waiting.popleft()
            if isinstance(first, Stream):
                return first
            together = [first]
            for item in list(self._waiting):
                if len(together) == self._batch:
                    break
                if isinstance(item, Whole) and item.length == first.length:
                    together.append(item)
                    self._waiting.remove(item)
            return together

    def _answer(self, items: "list[Whole]") -> None:
        """Answer a batch; one that cannot be answered must not spoil the others."""
        try:
            answers = self._guard.answer([item.question for item in items], items[0].length)
        except Exception as error:
            if len(items) == 1:
                items[0].answer.set_exception(error)
                return
            for item in items:
                self._answer([item])
            return
        for item, answer in zip(items, answers, strict=True):
            item.answer.set_result(answer)

    def _stream(self, item: Stream) -> None:
        try:
            streamed = self._guard.stream(item.question, item.length)
            item.pieces.put(Opening(streamed.verdict, streamed.asked))
            for piece in streamed.pieces:
                if item.left.is_set():
                    break
                item.pieces.put(piece)
        except Exception as error:
            item.pieces.put(error)
        item.pieces.put(None)


def _fail(item: Whole | Stream, error: Exception) -> None:
    if isinstance(item, Whole):
        item.answer.set_exception(error)
    else:
        item.pieces.put(error)
        item.pieces.put(None)
