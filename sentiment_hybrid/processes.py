"""Helper processes that answer messages: JSON lines over pipes, the cores or GPUs shared among them.

A helper reads tasks from its standard input and ends with it, so that none outlives a killed parent.
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
from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import IO, Any

import joblib

_KEPT_OUTPUT = 2000  # characters of the stderr of a dead process


@dataclass
class _Helper:
    """A process; its stderr goes to a file, for the error message if it dies."""

    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]
    busy: bool = False
    reader: threading.Thread | None = field(default=None, repr=False)

    def send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it died, which its reader thread reports
            self.stdin.write(json.dumps(message).encode() + b"\n")
            self.stdin.flush()

    def death_message(self) -> str:
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.stderr.seek(0)
        last = self.stderr.read().decode("utf-8", "replace").strip()[-_KEPT_OUTPUT:]
        return f"{last}\nworker died ({how})".strip()


@dataclass(frozen=True)
class Event:
    """An answer of a helper; ``message`` is None if it died, and ``died`` says how."""

    slot: int
    message: dict[str, Any] | None
    died: str = ""


class Helpers:
    """``count`` processes that run ``serve``, a function as ``package.module:name``, and are first sent ``setup``.

    One that dies is replaced when its slot is used again.
    """

    def __init__(self, serve: str, count: int, setup: Mapping[str, Any], *, gpus: int = 0) -> None:
        self._serve, self._setup, self._gpus, self._count = serve, setup, gpus, count
        self._workers: dict[int, _Helper] = {}
        self._events: SimpleQueue[tuple[int, _Helper, dict[str, Any] | None]] = SimpleQueue()

    def idle(self) -> list[int]:
        """Slots whose helper is idle, or not started yet."""
        return [slot for slot in range(self._count) if slot not in self._workers or not self._workers[slot].busy]

    def give(self, slot: int, task: Mapping[str, Any]) -> None:
        """Send a task to the helper of a slot, which is started if necessary, and is busy until `release`."""
        if slot not in self._workers:
            self._workers[slot] = self._spawn(slot)
        self._workers[slot].busy = True
        self._workers[slot].send(task)

    def tell(self, slot: int, message: Mapping[str, Any]) -> None:
        """Send a message about its task to a helper, if there is one."""
        if slot in self._workers:
            self._workers[slot].send(message)

    def release(self, slot: int) -> None:
        """The task of a slot has ended."""
        if slot in self._workers:
            self._workers[slot].busy = False

    def next(self, timeout: float) -> Event | None:
        """The next answer of any helper, or the death of a busy one; None after ``timeout`` seconds without one."""
        try:
            slot, worker, message = self._events.get(timeout=timeout)
        except Empty:
            return None
        if self._workers.get(slot) is not worker:
            return None  # a message of a process that has been replaced
        if message is not None:
            return Event(slot, message)
        del self._workers[slot]
        died = worker.death_message()
        _end(worker)
        return Event(slot, None, died) if worker.busy else None

    def close(self) -> None:
        """End all processes; they have nothing to save."""
        for worker in self._workers.values():
            worker.process.kill()
            worker.process.wait()
            _end(worker)
        self._workers.clear()

    def _spawn(self, slot: int) -> _Helper:
        module, _, name = self._serve.partition(":")
        command = [sys.executable, "-P", "-c", f"from {module} import {name}; {name}()"]
        pipe = subprocess.PIPE
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed together with the process
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, env=self._environment(slot))
        assert process.stdin is not None
        assert process.stdout is not None
        worker = _Helper(process, process.stdin, process.stdout, stderr)
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
        return environment | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), threads)

    def _listen(self, slot: int, worker: _Helper) -> None:
        for line in worker.stdout:
            try:
                self._events.put((slot, worker, json.loads(line)))
            except ValueError:  # incomplete line of a dead process
                break
        self._events.put((slot, worker, None))


def _end(worker: _Helper) -> None:
    """Close the pipes of a dead process."""
    assert worker.reader is not None
    with contextlib.suppress(OSError):
        worker.stdin.close()
    worker.reader.join()
    worker.stdout.close()
    worker.stderr.close()


# --- in a helper -----------------------------------------------------------------------------------------------------


class Parent:
    """What a helper hears and answers, from its start to the end of its standard input."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and ends its helpers
        # Other writes to standard output are redirected to standard error.
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._heard: SimpleQueue[dict[str, Any]] = SimpleQueue()
        threading.Thread(target=self._hear, daemon=True).start()

    def hear(self) -> dict[str, Any]:
        """The next message: first the setup, then tasks."""
        return self._heard.get()

    def answer(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        self._answers.write(json.dumps(message).encode() + b"\n")
        self._answers.flush()

    def _hear(self) -> None:
        """Queue messages of the parent; exits immediately when it ends, even during a task."""
        for line in sys.stdin.buffer:
            self._heard.put(json.loads(line))
        os._exit(0)
