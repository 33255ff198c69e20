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
from sentiment_hybrid.tuning.trials import TrialBench
from sentiment_hybrid.tuning.workers import WorkerLanes, open_lanes


def event(lanes: WorkerLanes, lane: int) -> Any:
    """The next outcome of a lane; those of others are let go on."""
    while True:
        found = lanes.next_event(120)
        assert found is not None, "no worker answered"
        if found[0] == lane:
            return found[1]
        if found[1].kind == "epoch":
            lanes.go_on(found[0])


def finish(lanes: WorkerLanes, lane: int) -> list[float]:
    values = []
    while (outcome := event(lanes, lane)).kind == "epoch":
        values.append(outcome.value)
        lanes.go_on(lane)
    assert outcome.kind == "done", outcome.text
    return values


def test_a_worker_trains_as_this_process_does_fails_alone_and_is_replaced(config: Config) -> None:
    params = {"hidden": 4, "learning_rate": 0.05}
    bench = TrialBench(config, "lstm")
    bench.prepare()
    expected = list(bench.epochs(params))
    with closing(open_lanes(bench, 2, Runtime(device="cpu"))) as lanes:
        assert isinstance(lanes, WorkerLanes)
        assert lanes.idle() == [0, 1]
        lanes.start(0, 0, params)
        assert lanes.idle() == [1]
        assert finish(lanes, 0) == pytest.approx(expected)
        assert lanes.idle() == [0, 1]

        lanes.start(0, 1, {"hidden": 5, "attention_heads": 4})
        outcome = event(lanes, 0)
        assert (outcome.kind, "must divide" in outcome.text) == ("unusable", True)

        lanes.start(0, 2, params)
        assert event(lanes, 0).kind == "epoch"
        lanes.stop(0)
        assert lanes.idle() == [0, 1]
        lanes.start(0, 3, params)
        assert finish(lanes, 0) == pytest.approx(expected), "a stopped trial leaves nothing behind"

        lanes.start(0, 4, params)
        assert event(lanes, 0).kind == "epoch"
        killed = lanes._workers[0].process
        killed.kill()
        outcome = event(lanes, 0)
        assert outcome.kind == "failed"
        assert "worker died" in outcome.text
        if os.name == "posix":
            assert "signal 9" in outcome.text
        assert lanes.idle() == [0, 1]
        lanes.start(0, 5, params)
        assert finish(lanes, 0) == pytest.approx(expected)
        alive = [worker.process for worker in lanes._workers.values()]
    assert all(process.poll() is not None for process in alive)


def test_what_a_worker_cannot_open_is_told(config: Config) -> None:
    gone = config.model_copy(update={"paths": config.paths.model_copy(update={"data_db": config.paths.models_dir})})
    setup = {"config": gone.model_dump(mode="json"), "model": "linear", "options": {}}
    with closing(WorkerLanes(1, setup)) as lanes:
        lanes.start(0, 0, {})
        outcome = event(lanes, 0)
    assert outcome.kind == "failed"
    assert "DatabaseError" in outcome.text


def test_each_worker_has_a_gpu_or_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert WorkerLanes(3, {})._environment(0)["OMP_NUM_THREADS"] == "2"
    gpus = WorkerLanes(3, {}, gpus=2)
    assert [gpus._environment(lane)["CUDA_VISIBLE_DEVICES"] for lane in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert [gpus._environment(lane)["CUDA_VISIBLE_DEVICES"] for lane in range(3)] == ["GPU-a", "GPU-b", "GPU-a"]


ORPHAN = """
import os, signal
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.workers import WorkerLanes
lanes = WorkerLanes(1, {"config": {}, "model": "linear", "options": {}})
lanes._workers[0] = lanes._spawn(0)
print(lanes._workers[0].process.pid, flush=True)
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
