"""Micro-batches: the requests that wait are computed together, in rounds, by the one thread that uses the model."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sentiment_hybrid.errors import SenthyError
from sentiment_hybrid.serving import log
from sentiment_hybrid.serving.model import ServedModel
from sentiment_hybrid.serving.problems import Problem
from sentiment_hybrid.serving.schema import PredictRequest

#: Seconds that a round should take: a request that has just missed one waits for so long.
_ROUND = 0.05
#: Characters of a round at least, about 32 tweets: on a slow machine, smaller ones would make it slower still.
_LEAST = 3200.0
#: What a text costs beside its characters, in characters.
_PER_TEXT = 30
#: Characters per second before anything has been measured, and the weight of a new measurement.
_FIRST_RATE, _NEW = 20_000.0, 0.2
#: Longest time that a client is asked to stay away, in seconds.
_LONGEST_RETRY = 60


@dataclass(eq=False)
class Job:
    """The texts of one request. The event loop owns ``answer``; the rest is the worker's once it has been submitted.

    ``answer`` receives the body of the response, as JSON.
    """

    texts: Sequence[str | None]
    asked: PredictRequest
    answer: asyncio.Future[bytes]
    model: ServedModel | None = None
    rows: list[np.ndarray] = field(default_factory=list)  # each (n, C)
    cut: list[np.ndarray] = field(default_factory=list)  # each (n,)
    taken: int = 0
    explanations: list[dict[str, Any] | None] = field(default_factory=list)
    dropped: bool = False

    @property
    def explaining(self) -> bool:
        """Whether its labels are known, and the words behind them are missing."""
        return self.asked.explain and self.taken == len(self.texts)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.taken == len(self.texts) and len(self.explanations) == len(self.texts) * self.asked.explain

    def take(self, budget: float) -> tuple[Sequence[str | None], float]:
        """The next texts, as many as fit but one at least, and their weight."""
        start, weight = self.taken, 0.0
        while self.taken < len(self.texts) and (self.taken == start or weight < budget):
            weight += _PER_TEXT + len(self.texts[self.taken] or "")
            self.taken += 1
        return self.texts[start : self.taken], weight


Piece = tuple[Job, Sequence[str | None], float]  # a request, some of its texts, and their weight


class Batcher:
    """A bounded queue of requests, and the thread that answers them.

    A round takes texts of all requests that wait, in turn, so that a large request does not hold up small ones. Within
    a round, texts are packed by length. A request is answered by one model, even if that is replaced meanwhile.

    Args:
        model: answers; assign another one to replace it.
        wait: seconds that a round waits for more requests, if the last one had several.
        limit: texts that may wait.
        computed: called by the thread with texts and seconds of each round.
    """

    def __init__(
        self, model: ServedModel, *, wait: float, limit: int, computed: Callable[[int, float], object]
    ) -> None:
        self.model = model
        #: Texts that wait for their answer; changed by the event loop alone.
        self.waiting = 0
        self._wait, self._limit, self._computed = wait, limit, computed
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._rate, self._last, self._explained = _FIRST_RATE, 1, False
        self._thread = threading.Thread(target=self._run, name="senthy-model", daemon=True)

    # --- the event loop's side

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread answers requests."""
        return self._thread.is_alive() and not self._closing

    @property
    def broken(self) -> bool:
        """Whether the thread has ended without having been asked to."""
        return not self._closing and not self._thread.is_alive()

    def submit(self, texts: Sequence[str | None], asked: PredictRequest) -> Job:
        """Put texts into the queue. Raises Problem 429 if too many wait already, 503 once it is closing."""
        if not self.alive:
            raise Problem(503, "the service is stopping", retry_after=5)
        if self.waiting + len(texts) > self._limit:
            raise Problem(
                429,
                f"{self.waiting:,} texts are waiting, and at most {self._limit:,} may",
                hint="Send the same request again after the time in Retry-After.",
                retry_after=self.retry_after(),
            )
        job = Job(texts, asked, asyncio.get_running_loop().create_future())
        self.waiting += len(texts)
        job.answer.add_done_callback(lambda _: self._forget(job))
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job

    def _forget(self, job: Job) -> None:
        self.waiting -= len(job.texts)
        job.dropped = True  # where it was cancelled, nothing more is computed for it

    def retry_after(self) -> int:
        """Seconds until about half of what waits is answered, if texts are short."""
        return min(_LONGEST_RETRY, max(1, math.ceil(self.waiting * _PER_TEXT / self._rate)))

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    # --- the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    return
                self._gather()
                pieces = self._take()
            if pieces:
                self._round(pieces)

    def _gather(self) -> None:
        """Wait a little for as many requests as the last round had: clients that it answered are about to return."""
        until = time.monotonic() + self._wait
        while self._last > 1 and len(self._jobs) < self._last and not self._closing:
            if (left := until - time.monotonic()) <= 0 or not self._changed.wait(left):
                return

    def _take(self) -> list[Piece]:
        """The texts of the next round with their requests, which leave the queue.

        A text that is explained has a round of its own, after which it is the turn of others.
        """
        self._jobs = deque(job for job in self._jobs if not job.dropped)
        for job in self._jobs:
            job.model = job.model or self.model
        label = [job for job in self._jobs if not job.explaining]
        self._explained = bool(self._jobs) and (not label or (self._jobs[0].explaining and not self._explained))
        if self._explained:
            return [(self._jobs.popleft(), (), 0.0)]
        return self._shared(label)

    def _shared(self, jobs: Sequence[Job]) -> list[Piece]:
        """Texts of requests for one model, each with its share of what fits into a round, but one text at least."""
        budget = round_ = max(_LEAST, self._rate * _ROUND)
        pieces: list[Piece] = []
        for job in jobs:
            if budget <= 0:
                break
            if job.model is jobs[0].model:
                texts, weight = job.take(round_ / len(jobs))
                pieces.append((job, texts, weight))
                budget -= weight
        chosen = {id(job) for job, _, _ in pieces}
        self._jobs = deque(job for job in self._jobs if id(job) not in chosen)
        self._last = len(pieces)
        return pieces

    def _round(self, pieces: list[Piece]) -> None:
        """Compute texts, and answer the requests that are complete; the others return to the queue."""
        started = time.perf_counter()
        pieces = [piece for piece in pieces if self._accepted(piece[0])]
        if not pieces:
            return
        self._guarded(self._label if pieces[0][1] else self._explain, pieces)
        seconds = time.perf_counter() - started
        if weight := sum(weight for _, _, weight in pieces):
            self._rate += _NEW * (weight / seconds - self._rate)
            self._computed(sum(len(texts) for _, texts, _ in pieces), seconds)
        open_ = [job for job, _, _ in pieces if not job.dropped]
        self._deliver([(job, self._body(job)) for job in open_ if job.complete])
        with self._changed:
            self._jobs.extend(job for job in open_ if not job.complete)

    def _accepted(self, job: Job) -> bool:
        """Whether the model can do what a request asks for; if not, it is answered with the reason."""
        if job.rows:
            return True
        assert job.model is not None
        try:
            job.model.check(job.asked)
        except SenthyError as error:
            self._refuse(job, Problem(422, error.message, hint=error.hint))
            return False
        return True

    def _refuse(self, job: Job, problem: Problem) -> None:
        job.dropped = True
        self._deliver([(job, problem)])

    def _guarded(self, work: Callable[[list[Piece]], None], pieces: list[Piece]) -> None:
        """Do the work; if it fails for several requests together, for each alone, so that one cannot fail others."""
        try:
            work(pieces)
        except Exception as error:  # noqa: BLE001 - the thread must survive whatever a text or a library does
            if len(pieces) > 1:
                for piece in pieces:
                    self._guarded(work, [piece])
                return
            self._refuse(pieces[0][0], self._problem(error))

    def _problem(self, error: Exception) -> Problem:
        log.event("failed", level=logging.ERROR, error=error)
        if isinstance(error, MemoryError):
            return Problem(503, "out of memory", hint="Send fewer or shorter texts.", retry_after=5)
        return Problem(500, "the model failed on this request", hint="The log of the service has the details.")

    def _label(self, pieces: list[Piece]) -> None:
        model = pieces[0][0].model
        assert model is not None
        rows, cut = model.probabilities([text for _, texts, _ in pieces for text in texts])
        start = 0
        for job, texts, _ in pieces:
            job.rows.append(rows[start : start + len(texts)])
            job.cut.append(cut[start : start + len(texts)])
            start += len(texts)

    def _explain(self, pieces: list[Piece]) -> None:
        job = pieces[0][0]
        assert job.model is not None
        at = len(job.explanations)
        row = np.concatenate(job.rows)[at]
        job.explanations.append(job.model.explanation(job.texts[at], row, job.asked))

    def _body(self, job: Job) -> bytes | Problem:
        """The response to a request whose texts are all computed."""
        assert job.model is not None
        try:
            answers = job.model.answers(np.concatenate(job.rows), np.concatenate(job.cut), job.asked)
            if job.asked.explain:
                answers = [{**one, "explanation": why} for one, why in zip(answers, job.explanations, strict=True)]
            document = {"model": job.model.id, "predictions": answers}
            return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        except Exception as error:  # noqa: BLE001 - as in _guarded
            return self._problem(error)

    def _deliver(self, results: list[tuple[Job, bytes | Problem]]) -> None:
        if not results:
            return
        try:
            results[0][0].answer.get_loop().call_soon_threadsafe(_hand_over, results)
        except RuntimeError:  # the loop was stopped by force: nobody waits any more
            return


def _hand_over(results: list[tuple[Job, bytes | Problem]]) -> None:
    for job, result in results:
        if job.answer.done():
            continue
        if isinstance(result, Problem):
            job.answer.set_exception(result)
        else:
            job.answer.set_result(result)
