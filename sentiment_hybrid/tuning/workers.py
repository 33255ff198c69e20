"""Trains trials in this process, or in several worker processes, one per GPU or sharing the CPU.

A worker is a Python process that reads tasks from its standard input and ends with it, so that none outlives a killed
parent. Only the parent accesses the study.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import IO, Any, Protocol

import joblib

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.trials import Outcome, TrialTrainer, outcomes

_KEPT_OUTPUT = 2000  # characters of the stderr of a dead worker


class TrialRunner(Protocol):
    """Trains one trial per slot. An ``epoch`` must be followed by ``resume`` or ``stop``; an end frees the slot."""

    def idle(self) -> list[int]:
        """Slots without a trial."""

    def start(self, slot: int, params: Mapping[str, Any]) -> None:
        """Start a trial."""

    def resume(self, slot: int) -> None:
        """Train the next epoch."""

    def stop(self, slot: int) -> None:
        """Abandon the trial and free the slot."""

    def next_event(self, timeout: float) -> tuple[int, Outcome] | None:
        """The next outcome of any slot; None after ``timeout`` seconds without one."""

    def close(self) -> None:
        """Stop all trials."""


class InProcessRunner:
    """Trains in this process, during ``next_event``."""

    def __init__(self, trial_trainer: TrialTrainer) -> None:
        self._trial_trainer = trial_trainer
        self._outcomes: Iterator[Outcome] | None = None

    def idle(self) -> list[int]:
        """Slot 0 while no trial is running."""
        return [0] if self._outcomes is None else []

    def start(self, slot: int, params: Mapping[str, Any]) -> None:
        """Prepare a trial; training starts with ``next_event``."""
        self._outcomes = self._trial_trainer.outcomes(params)

    def resume(self, slot: int) -> None:
        """Nothing to do: ``next_event`` trains the next epoch."""

    def stop(self, slot: int) -> None:
        """Abandon the trial and free its memory."""
        outcomes, self._outcomes = self._outcomes, None
        if outcomes is not None:
            outcomes.close()  # type: ignore[attr-defined]

    def next_event(self, timeout: float) -> tuple[int, Outcome] | None:
        """Train up to the next outcome, ignoring the timeout."""
        assert self._outcomes is not None
        outcome = next(self._outcomes)
        if outcome.ends:
            self.stop(0)
        return 0, outcome

    def close(self) -> None:
        """Abandon the running trial."""
        self.stop(0)


@dataclass
class _Worker:
    """A worker process; its stderr goes to a file, for the error message if it dies."""

    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    busy: bool = False
    reader: threading.Thread | None = field(default=None, repr=False)

    def send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it died, which its reader thread reports
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def death_message(self) -> str:
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.stderr.seek(0)
        last = self.stderr.read().decode("utf-8", "replace").strip()[-_KEPT_OUTPUT:]
        return f"{last}\nworker died ({how})".strip()


class WorkerPool:
    """Trains in ``count`` processes; one that dies is replaced when its slot is used again."""

    def __init__(self, count: int, setup: Mapping[str, Any], *, gpus: int = 0) -> None:
        self._setup, self._gpus, self._count = setup, gpus, count
        self._workers: dict[int, _Worker] = {}
        self._events: SimpleQueue[tuple[int, _Worker, dict[str, Any] | None]] = SimpleQueue()

    def idle(self) -> list[int]:
        """Slots whose worker is idle, or not started yet."""
        return [slot for slot in range(self._count) if slot not in self._workers or not self._workers[slot].busy]

    def start(self, slot: int, params: Mapping[str, Any]) -> None:
        """Send a trial to the worker of a slot, which is started if necessary."""
        if slot not in self._workers:
            self._workers[slot] = self._spawn(slot)
        worker = self._workers[slot]
        worker.busy = True
        worker.send({"params": dict(params)})

    def resume(self, slot: int) -> None:
        """Let the worker train the next epoch."""
        self._workers[slot].send({"go": True})

    def stop(self, slot: int) -> None:
        """Have the worker abandon its trial."""
        if slot in self._workers:
            self._workers[slot].busy = False
            self._workers[slot].send({"go": False})

    def next_event(self, timeout: float) -> tuple[int, Outcome] | None:
        """The next message of any worker; if a busy worker dies, its trial has failed."""
        try:
            slot, worker, message = self._events.get(timeout=timeout)
        except Empty:
            return None
        if self._workers.get(slot) is not worker:
            return None  # a message of a worker that has been replaced
        if message is None:
            del self._workers[slot]
            text = worker.death_message()
            _end(worker)
            return (slot, Outcome("failed", text=text)) if worker.busy else None
        outcome = Outcome(**message)
        worker.busy = worker.busy and not outcome.ends
        return slot, outcome

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers.values():
            worker.process.kill()  # it has nothing to save
            worker.process.wait()
            _end(worker)
        self._workers.clear()

    def _spawn(self, slot: int) -> _Worker:
        command = [sys.executable, "-P", "-c", "from sentiment_hybrid.tuning.workers import serve; serve()"]
        pipe = subprocess.PIPE
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed together with the worker
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, env=self._environment(slot))
        worker = _Worker(process, stderr)
        worker.reader = threading.Thread(target=self._listen, args=(slot, worker), daemon=True)
        worker.reader.start()
        worker.send(self._setup)
        return worker

    def _environment(self, slot: int) -> dict[str, str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if self._gpus:
            visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
            names = visible or [str(number) for number in range(self._gpus)]
            return environment | {"CUDA_VISIBLE_DEVICES": names[slot % len(names)]}
        threads = str(max(1, joblib.cpu_count() // self._count))
        return environment | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    def _listen(self, slot: int, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            try:
                self._events.put((slot, worker, json.loads(line)))
            except ValueError:  # incomplete line of a dead worker
                break
        self._events.put((slot, worker, None))


def _end(worker: _Worker) -> None:
    """Close the pipes of a dead worker."""
    assert worker.process.stdin is not None
    assert worker.process.stdout is not None
    assert worker.reader is not None
    with contextlib.suppress(OSError):
        worker.process.stdin.close()
    worker.reader.join()
    worker.process.stdout.close()
    worker.stderr.close()


def open_runner(trial_trainer: TrialTrainer, count: int, runtime: Runtime) -> TrialRunner:
    """A runner for ``count`` trials at a time."""
    if count == 1:
        return InProcessRunner(trial_trainer)
    import torch

    on_gpu = runtime.device in {"auto", "cuda"} and torch.cuda.is_available()
    document = trial_trainer.config.model_dump(mode="json")
    encoder = None if runtime.encoder is None else str(runtime.encoder)
    setup = {"config": document, "model": trial_trainer.model, "runtime": asdict(replace(runtime, encoder=encoder))}
    return WorkerPool(count, setup, gpus=torch.cuda.device_count() if on_gpu else 0)


# --- worker process --------------------------------------------------------------------------------------------------


def serve() -> None:
    """Train the trials requested on standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and ends its workers
    answers = _answers()
    tasks: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_hear, args=(tasks,), daemon=True).start()
    setup = tasks.get()
    trainers: list[TrialTrainer] = []

    def train(params: Mapping[str, Any]) -> Iterator[Outcome]:
        if not trainers:
            config = Config.model_validate(setup["config"])
            trainers.append(TrialTrainer(config, setup["model"], Runtime(**setup["runtime"])))
        return trainers[0].train(params)

    while True:
        task = tasks.get()
        trial = outcomes(lambda params=task["params"]: train(params))  # type: ignore[misc]
        for outcome in trial:
            answers.write(json.dumps(asdict(outcome)).encode() + b"\n")
            answers.flush()
            if outcome.kind == "epoch" and not tasks.get()["go"]:
                trial.close()  # type: ignore[attr-defined]


def _answers() -> IO[bytes]:
    """The pipe to the parent; other writes to standard output are redirected to standard error."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def _hear(tasks: SimpleQueue[dict[str, Any]]) -> None:
    """Forward messages of the parent; exits immediately when it ends, even during an epoch."""
    for line in sys.stdin.buffer:
        tasks.put(json.loads(line))
    os._exit(0)
