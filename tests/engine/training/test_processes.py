"""Two real processes train what one would, agree on what must be the same, and tell each failure once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from sentiment_hybrid import distributed
from sentiment_hybrid.engine.training.checkpoints import TrainerState
from sentiment_hybrid.errors import ConfigError, TrainingError, UsageError

from . import together


@dataclass(frozen=True)
class Two:
    """What each of two processes reports, and where a training stood that they began."""

    reports: list[dict[str, Any]]
    state: TrainerState


@pytest.fixture(scope="module")
def two(tiny_encoder_dir, tmp_path_factory):
    """One launch for the whole module."""
    folder = tmp_path_factory.mktemp("two")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, together.__file__, str(tiny_encoder_dir), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    state = TrainerState(load_file(folder / "state.safetensors"), json.loads((folder / "state.json").read_text()))
    return Two([json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], state)


@pytest.mark.parametrize("name", together.CASES)
def test_two_processes_train_what_one_would(two, tiny_encoder_dir, tmp_path, name):
    one = together.trained(tiny_encoder_dir, tmp_path / "cache", together.CASES[name])
    assert len(one["losses"]) >= 20
    for report in two.reports:
        for what in ("losses", "valid", "logits"):
            np.testing.assert_allclose(report[name][what], one[what], atol=1e-4, rtol=0, err_msg=what)
    assert two.reports[0][name]["logits"] == two.reports[1][name]["logits"]
    assert two.reports[0][name]["valid"] == two.reports[1][name]["valid"]
    # One that has less memory lowers the budget of both.
    assert two.reports[0][name]["token_budget"] == two.reports[1][name]["token_budget"]
    assert (two.reports[0][name]["token_budget"] < one["token_budget"]) == ("scarce" in together.CASES[name])
    # Whoever encoded it, each distinct window was encoded once.
    assert sum(report[name]["passes"] for report in two.reports) == one["passes"]


def test_two_processes_that_were_stopped_go_on_bit_for_bit_and_draw_dropout_of_their_own(two):
    first, second = (report["resumed"] for report in two.reports)
    assert first["whole"] == first["resumed"] == second["whole"] == second["resumed"]
    assert first["draw"] != second["draw"]


def test_what_two_processes_began_one_goes_on_with(two, tiny_encoder_dir, tmp_path):
    case = together.CASES[together.GOES_ON]
    whole = two.reports[0][together.GOES_ON]
    rest = together.trained(tiny_encoder_dir, tmp_path / "cache", case, two.state)
    np.testing.assert_allclose(rest["logits"], whole["logits"], atol=1e-4, rtol=0)
    assert len(rest["losses"]) == len(whole["losses"]) - 7


def test_where_one_process_has_no_room_for_states_all_run_the_encoder_live_and_the_main_one_says_why(two):
    main, other = (report["room on one"] for report in two.reports)
    assert (main["own"], other["own"]) == (True, False)
    assert (main["agreed"], other["agreed"]) == (False, False)
    assert "cache.max_gb" in main["said"][0]
    assert other["said"] == []


def test_a_lost_connection_is_reported_as_the_end_of_another_process(monkeypatch):
    monkeypatch.setattr(distributed, "_control", ["connected"])
    with pytest.raises(TrainingError, match="another process of this training has ended"), distributed.watched():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:14342")
    with pytest.raises(RuntimeError, match="mat1 and mat2"), distributed.watched():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_processes_agree_on_what_must_be_the_same(two):
    for report in two.reports:
        assert report["gathered"] == [0, 1]
        assert report["agreed"] == [True, False]
        assert report["from main"] == 0


def test_a_failure_reaches_every_process_and_the_main_one_tells_it(two):
    main, other = two.reports
    assert main["all fail"] == ["ConfigError", "no such thing", 2, True]
    assert other["all fail"] == ["ConfigError", "no such thing", 2, False]
    assert main["main fails"] == main["all fail"]
    assert other["main fails"][2:] == [2, False]
    for report in two.reports:
        kind, message, code, _ = report["the other fails"]
        assert (kind, code) == ("TrainingError", 1)
        assert "process 1" in message
        assert "MemoryError: too much" in message
        assert "process 1 and the main process have different" in report["differ"][1]


def test_alone_everything_answers_at_once(monkeypatch):
    monkeypatch.setenv("RANK", "3")  # left over in the environment: without a world it means nothing
    distributed.join("cpu")
    assert (distributed.world(), distributed.rank(), distributed.local_rank(), distributed.local_world()) == (
        1,
        0,
        0,
        1,
    )
    assert distributed.is_main()
    assert distributed.reports(ConfigError("x"))
    assert distributed.gather("a") == ["a"]
    assert distributed.any_process(True)
    assert distributed.from_main(lambda: 1) == distributed.together(lambda: 1) == 1
    distributed.check_same(1, "a number")
    distributed.leave()


def test_before_they_are_connected_the_first_process_of_each_machine_tells(monkeypatch):
    for rank, local_rank, tells in ((0, 0, True), (1, 1, False), (2, 0, True)):
        for name, value in {"WORLD_SIZE": 4, "RANK": rank, "LOCAL_RANK": local_rank}.items():
            monkeypatch.setenv(name, str(value))
        assert distributed.reports(ConfigError("x")) is tells


@pytest.mark.parametrize(
    ("environment", "device", "message", "hint"),
    [
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, "cpu", "one process only", "torchrun"),
        ({"PMI_SIZE": "4"}, "cpu", "MPI has started 4", "torchrun"),
        ({"ACCELERATE_USE_FSDP": "true"}, "cuda", "FSDP", "torchrun"),
        ({"ACCELERATE_USE_CPU": "True"}, "cuda", "cannot train on cuda", "--cpu"),
        ({"WORLD_SIZE": "2"}, "mps", "cannot train on mps", "--device cpu"),
    ],
)
def test_a_launch_that_cannot_work_is_refused_with_the_way_out(monkeypatch, environment, device, message, hint):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message) as caught:
        distributed.join(device)
    assert hint in caught.value.hint


def test_side_by_side_under_mpi_each_process_trains_its_own(monkeypatch):
    from sentiment_hybrid.engine import device

    monkeypatch.setenv("PMI_SIZE", "4")
    assert device.accelerator(device.resolve("cpu", "fp32")).num_processes == 1


def test_more_processes_than_gpus_are_refused(monkeypatch):
    import torch

    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match="2 processes were started on a machine with 1 GPUs"):
        distributed.join("cuda")
