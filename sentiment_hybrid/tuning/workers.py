"""Where trials are trained: in this process, or in several workers of this machine, one per GPU or sharing the CPU.

A worker is a process of this Python that reads tasks from its standard input and ends with it, so that none outlives a
killed parent. It never sees the study: the parent asks and tells, the worker trains.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import IO, Any, Protocol

import joblib

from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.trials import Outcome, TrialBench

_KEPT_OUTPUT = 2000  # characters of what a worker said before it died


class Lanes(Protocol):
    """Trains one trial per lane. After an ``epoch``, ``go_on`` or ``stop`` must follow; any other outcome frees it."""

    def idle(self) -> list[int]:
        """Lanes without a trial."""

    def start(self, lane: int, number: int, params: Mapping[str, Any]) -> None:
        """Begin with a trial."""

    def go_on(self, lane: int) -> None:
        """Train the next epoch."""

    def stop(self, lane: int) -> None:
        """Give the trial up and free the lane."""

    def next_event(self, timeout: float) -> tuple[int, Outcome] | None:
        """The next outcome of any lane; None if none came within so many seconds."""

    def close(self) -> None:
        """End whatever is under way."""


class OwnLane:
    """Trains in this process, one epoch per ``next_event``."""

    def __init__(self, bench: TrialBench) -> None:
        self._bench = bench
        self._outcomes: Iterator[Outcome] | None = None

    def idle(self) -> list[int]:
        """Lane 0 while no trial is under way."""
        return [0] if self._outcomes is None else []

    def start(self, lane: int, number: int, params: Mapping[str, Any]) -> None:
        """Get ready; training begins with ``next_event``."""
        self._outcomes = self._bench.outcomes(params)

    def go_on(self, lane: int) -> None:
        """The next ``next_event`` trains."""

    def stop(self, lane: int) -> None:
        """Give the trial up and free its memory."""
        outcomes, self._outcomes = self._outcomes, None
        if outcomes is not None:
            outcomes.close()  # type: ignore[attr-defined]

    def next_event(self, timeout: float) -> tuple[int, Outcome] | None:
        """Train an epoch, however long that takes."""
        assert self._outcomes is not None
        outcome = next(self._outcomes)
        if outcome.kind != "epoch":
            self.stop(0)
        return 0, outcome

    def close(self) -> None:
        """Give up what is under way."""
        self.stop(0)


@dataclass
class _Worker:
    """A worker's process; what it says on stderr goes to a file, to be told should it die."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]
    busy: bool = False
    reader: threading.Thread | None = field(default=None, repr=False)

    def send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it died, which its reader tells
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def epitaph(self) -> str:
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.said.seek(0)
        last = self.said.read().decode("utf-8", "replace").strip()[-_KEPT_OUTPUT:]
        return f"{last}\nworker died ({how})".strip()


class WorkerLanes:
    """Trains in ``count`` processes of this machine; one that dies is replaced when its lane is used again."""

    def __init__(self, count: int, setup: Mapping[str, Any], *, gpus: int = 0) -> None:
        self._setup, self._gpus, self._count = setup, gpus, count
        self._workers: dict[int, _Worker] = {}
        self._events: SimpleQueue[tuple[int, _Worker, dict[str, Any] | None]] = SimpleQueue()

    def idle(self) -> list[int]:
        """Lanes whose worker has nothing to do, or is not there yet."""
        return [lane for lane in range(self._count) if lane not in self._workers or not self._workers[lane].busy]

    def start(self, lane: int, number: int, params: Mapping[str, Any]) -> None:
        """Send a trial to the lane's worker, which is started if there is none."""
        if lane not in self._workers:
            self._workers[lane] = self._spawn(lane)
        worker = self._workers[lane]
        worker.busy = True
        worker.send({"number": number, "params": dict(params)})

    def go_on(self, lane: int) -> None:
        """Let the worker train the next epoch."""
        self._workers[lane].send({"go": True})

    def stop(self, lane: int) -> None:
        """Have the worker give its trial up."""
        if lane in self._workers:
            self._workers[lane].busy = False
            self._workers[lane].send({"go": False})

    def next_event(self, timeout: float) -> tuple[int, Outcome] | None:
        """What any worker has told; the death of a busy one is a failure of its trial."""
        try:
            lane, worker, message = self._events.get(timeout=timeout)
        except Empty:
            return None
        if self._workers.get(lane) is not worker:
            return None  # the last words of one that has been replaced
        if message is None:
            del self._workers[lane]
            text = worker.epitaph()
            _end(worker)
            return (lane, Outcome("failed", text=text)) if worker.busy else None
        if message["kind"] != "epoch":
            worker.busy = False
        return lane, Outcome(**message)

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers.values():
            worker.process.kill()  # it holds nothing that is worth a goodbye
            worker.process.wait()
            _end(worker)
        self._workers.clear()

    def _spawn(self, lane: int) -> _Worker:
        command = [sys.executable, "-P", "-c", "from sentiment_hybrid.tuning.workers import serve; serve()"]
        pipe = subprocess.PIPE
        said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as its worker
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, env=self._environment(lane))
        worker = _Worker(process, said)
        worker.reader = threading.Thread(target=self._listen, args=(lane, worker), daemon=True)
        worker.reader.start()
        worker.send(self._setup)
        return worker

    def _environment(self, lane: int) -> dict[str, str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if self._gpus:
            visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
            names = visible or [str(number) for number in range(self._gpus)]
            return environment | {"CUDA_VISIBLE_DEVICES": names[lane % len(names)]}
        threads = str(max(1, joblib.cpu_count() // self._count))
        return environment | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    def _listen(self, lane: int, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            try:
                self._events.put((lane, worker, json.loads(line)))
            except ValueError:  # cut off by its death
                break
        self._events.put((lane, worker, None))


def _end(worker: _Worker) -> None:
    """Close the pipes of a worker that is dead."""
    assert worker.process.stdin is not None
    assert worker.process.stdout is not None
    assert worker.reader is not None
    with contextlib.suppress(OSError):
        worker.process.stdin.close()
    worker.reader.join()
    worker.process.stdout.close()
    worker.said.close()


def open_lanes(bench: TrialBench, count: int, runtime: Runtime) -> Lanes:
    """The lane of this process for one worker, else that many processes."""
    if count == 1:
        return OwnLane(bench)
    import torch

    on_gpu = runtime.device in {"auto", "cuda"} and torch.cuda.is_available()
    document = bench.config.model_dump(mode="json")
    encoder = None if runtime.encoder is None else str(runtime.encoder)
    setup = {"config": document, "model": bench.model, "runtime": asdict(replace(runtime, encoder=encoder))}
    return WorkerLanes(count, setup, gpus=torch.cuda.device_count() if on_gpu else 0)


# --- what a worker does ----------------------------------------------------------------------------------------------


def serve() -> None:
    """Train what standard input asks for, until it ends."""
    import signal

    from sentiment_hybrid.config.schema import Config
    from sentiment_hybrid.tuning.trials import outcomes

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is ours
    answers = _answers()
    tasks: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_hear, args=(tasks,), daemon=True).start()
    setup = tasks.get()
    benches: list[TrialBench] = []

    def epochs(params: Mapping[str, Any]) -> Iterator[float]:
        if not benches:
            config = Config.model_validate(setup["config"])
            benches.append(TrialBench(config, setup["model"], Runtime(**setup["runtime"])))
        return benches[0].epochs(params)

    while True:
        task = tasks.get()
        trial = outcomes(lambda params=task["params"]: epochs(params))  # type: ignore[misc]
        for outcome in trial:
            answers.write(json.dumps(asdict(outcome)).encode() + b"\n")
            answers.flush()
            if outcome.kind == "epoch" and not tasks.get()["go"]:
                trial.close()  # type: ignore[attr-defined]


def _answers() -> IO[bytes]:
    """The pipe to the parent; whatever else writes to standard output is sent to standard error."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def _hear(tasks: SimpleQueue[dict[str, Any]]) -> None:
    """Hand over what the parent says; its end is ours at once, in the middle of an epoch too."""
    for line in sys.stdin.buffer:
        tasks.put(json.loads(line))
    os._exit(0)
