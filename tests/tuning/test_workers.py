"""Workers give what one process gives; one that dies fails its trial alone and is replaced."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import closing, suppress
from typing import Any

import pytest

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.trials import TrialTrainer
from sentiment_hybrid.tuning.workers import WorkerPool, open_runner


def event(pool: WorkerPool, slot: int) -> Any:
    """The next outcome of a slot that is no step; those of others are let go on."""
    while True:
        found = pool.next_event(120)
        assert found is not None, "no worker answered"
        if found[1].kind == "step":
            continue
        if found[0] == slot:
            return found[1]
        if found[1].kind == "epoch":
            pool.resume(found[0])


def finish(pool: WorkerPool, slot: int) -> list[float]:
    values = []
    while (outcome := event(pool, slot)).kind == "epoch":
        values.append(outcome.value)
        pool.resume(slot)
    assert outcome.kind == "done", outcome.text
    return values


def test_a_worker_trains_as_this_process_does_fails_alone_and_is_replaced(config: Config) -> None:
    params = {"hidden": 4, "learning_rate": 0.05}
    trial_trainer = TrialTrainer(config, "lstm", Runtime(device="cpu"))
    trial_trainer.prepare()
    expected = [outcome.value for outcome in trial_trainer.train(params) if outcome.kind == "epoch"]
    with closing(open_runner(trial_trainer, 2)) as pool:
        assert isinstance(pool, WorkerPool)
        assert pool.idle() == [0, 1]
        pool.start(0, params)
        assert pool.idle() == [1]
        assert finish(pool, 0) == pytest.approx(expected)
        assert pool.idle() == [0, 1]

        pool.start(0, {"hidden": 5, "attention_heads": 4})
        outcome = event(pool, 0)
        assert (outcome.kind, "must divide" in outcome.text) == ("unusable", True)

        pool.start(0, params)
        assert event(pool, 0).kind == "epoch"
        pool.stop(0)
        assert pool.idle() == [0, 1]
        pool.start(0, params)
        assert finish(pool, 0) == pytest.approx(expected), "a stopped trial leaves nothing behind"

        pool.start(0, params)
        assert event(pool, 0).kind == "epoch"
        killed = pool._workers[0].process
        killed.kill()
        outcome = event(pool, 0)
        assert outcome.kind == "failed"
        assert "worker died" in outcome.text
        if os.name == "posix":
            assert "signal 9" in outcome.text
        assert pool.idle() == [0, 1]
        pool.start(0, params)
        assert finish(pool, 0) == pytest.approx(expected)
        alive = [worker.process for worker in pool._workers.values()]
    assert all(process.poll() is not None for process in alive)


def test_what_a_worker_cannot_open_is_reported(config: Config) -> None:
    gone = config.model_copy(update={"paths": config.paths.model_copy(update={"data_db": config.paths.models_dir})})
    setup = {"config": gone.model_dump(mode="json"), "model": "linear", "runtime": {}}
    with closing(WorkerPool(1, setup)) as pool:
        pool.start(0, {})
        outcome = event(pool, 0)
    assert outcome.kind == "failed"
    assert "DatabaseError" in outcome.text


def test_each_worker_has_a_gpu_or_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert WorkerPool(3, {})._environment(0)["OMP_NUM_THREADS"] == "2"
    gpus = WorkerPool(3, {}, gpus=2)
    assert [gpus._environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert [gpus._environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["GPU-a", "GPU-b", "GPU-a"]


ORPHAN = """
import os, signal
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.workers import WorkerPool
pool = WorkerPool(1, {"config": {}, "model": "linear", "runtime": {}})
pool._workers[0] = pool._spawn(0)
print(pool._workers[0].process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs a handle on a process that is no child: Linux")
def test_no_worker_outlives_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    with suppress(ProcessLookupError):  # it has ended already
        handle = os.pidfd_open(worker)
        ended, _, _ = select.select([handle], [], [], 60)
        os.close(handle)
        assert ended
    assert parent.wait(timeout=60) == -signal.SIGKILL
    parent.stdout.close()
