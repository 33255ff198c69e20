"""``senthy train`` in two real processes: one model, one run, one voice, and no stop that costs the work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.training.fingerprint import train_fingerprint
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.reporting.results import read_results
from sentiment_hybrid.runtime import Runtime

#: Calls the command line once for each `--` separated list of arguments and notes how it ended.
CALLS = """
import sys
import torch
torch.set_num_threads(1)
from sentiment_hybrid.cli import main
from sentiment_hybrid import distributed
distributed.await_message = lambda: None  # of calls in a row the first one does not end the process
def call(arguments):
    leave, distributed.leave = distributed.leave, lambda: None  # a process can join once; the last call leaves
    try:
        main(arguments)
    except SystemExit as end:
        return end.code
    finally:
        distributed.leave = leave
codes = []
"""

ERROR_THEN_WHOLE = """
bare, whole = sys.argv[1:]
codes.append(call(["train", "--model", "lstm", "--config", bare]))
codes.append(call(["train", "--model", "lstm", "--config", whole]))
"""

#: Ctrl-C reaches the second process alone; then a training that goes on is killed, both processes at once.
STOPPED_THEN_KILLED = """
import os, signal
from sentiment_hybrid.engine.training import checkpoints, trainer
from pathlib import Path
real = trainer.Trainer._step
steps = 0
def step(self, *arguments):
    global steps
    steps += 1
    if steps == 5 and distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGINT)
    return real(self, *arguments)
trainer.Trainer._step = step
train = ["train", "--model", "lstm", "--config", sys.argv[1]]
codes.append(call(train))
sys.stderr.write(f"after the interrupt: {codes}\\n")  # one write: two processes share the stream
pids = distributed.gather(os.getpid())
save = checkpoints.RunCheckpoints.save
saves = 0
def save_and_die(self, state, **options):
    global saves
    save(self, state, **options)
    saves += 1
    if saves == 6:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGKILL)
checkpoints.RunCheckpoints.save = save_and_die
call([*train, "--resume"])
"""

END = """
sys.stderr.write(f"codes: {codes}\\n")
distributed.leave()
"""


def launch(script, *arguments):
    """Run a script in two processes that torchrun starts."""
    file = script[0] / "script.py"
    file.write_text(CALLS + script[1] + END)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(file)]
    return subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_publish_one_model_speak_once_and_go_on_after_any_stop(make_project):
    if os.name != "posix":
        pytest.skip("needs POSIX signals")
    bare, whole, stopped = make_project("bare", prepare=False), make_project("whole"), make_project("stopped")
    for project in (whole, stopped):
        every_step = "epochs: 2\n    checkpoint_minutes: 0"
        project.file.write_text(project.file.read_text().replace("epochs: 2", every_step))

    done = launch((whole.folder, ERROR_THEN_WHOLE), bare.file, whole.file)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Error") == done.stderr.count("senthy data") == 1, done.stderr
    assert done.stderr.count("codes: [1, 0]") == 2, done.stderr
    assert done.stderr.count("epoch 1 of 2") == 1, done.stderr
    assert done.stdout.count("trained in") == done.stdout.count("best of 2 epochs") == 1, done.stdout
    published = whole.folder / "models" / "lstm_roberta_model_final"
    assert {path.name for path in published.parent.iterdir()} == {published.name, "runs"}
    results = whole.folder / "results"
    (entry,) = read_results(results / "model_results.json")
    (folder,) = (results / "runs").iterdir()
    assert entry["name"] == "LSTMRoBERTa_Train"
    assert entry["run"] == folder.name == read_info(published).run_id
    run = Run(folder)
    assert [facts["epoch"] for facts in run.epochs()] == [1, 2]
    assert run.meta()["compute"]["processes"] == 2
    assert run.meta()["encoder_passes"] > 0
    assert "finished" in run.meta()

    done = launch((stopped.folder, STOPPED_THEN_KILLED), stopped.file)
    assert done.returncode != 0
    assert done.stderr.count("after the interrupt: [130]") == 2, done.stderr
    assert done.stderr.count("state saved") == 1, done.stderr
    assert done.stderr.count("epoch 1, after 5 of") == 1, done.stderr
    run = Run(next((stopped.folder / "results" / "runs").iterdir()))
    assert run.checkpoints.load("last").progress["global_step"] > 5

    script = 'codes.append(call(["train", "--model", "lstm", "--no-test", "--resume", "--config", sys.argv[1]]))'
    done = launch((stopped.folder, script), stopped.file)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr
    went_on = read_info(stopped.folder / "models" / "lstm_roberta_model_final")
    assert went_on.weights_sha256 == read_info(published).weights_sha256


def test_a_run_of_two_processes_goes_on_in_one_and_says_what_that_means(project, capsys):
    from sentiment_hybrid.commands import train

    config = project.config()
    fingerprint = train_fingerprint(config, "linear", train._data_fingerprint(config))
    run = Run.start(config, "linear", fingerprint)
    run.note(compute={"device": "cpu", "precision": "fp32", "threads": 7, "processes": 2})
    result = train.run(config, "linear", runtime=Runtime(resume=True), test=False)
    assert result.run_dir == run.folder
    assert "started with 2 processes and continues with 1: not bit-identical" in capsys.readouterr().err
