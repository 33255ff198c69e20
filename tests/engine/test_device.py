"""Device, precision and threads: what the machine has, and never against what the user said."""

from __future__ import annotations

import os

import pytest
import torch

from sentiment_hybrid.engine import device, threads
from sentiment_hybrid.errors import TrainingError


@pytest.fixture
def unsaid(monkeypatch):
    """Nobody has set a number of threads."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def machine(folder, cpus, siblings, monkeypatch):
    """A machine whose processors share cores as given."""
    for cpu, of_core in zip(cpus, siblings, strict=True):
        place = folder / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(of_core + "\n", encoding="ascii")
    monkeypatch.setattr(threads, "_CPUS", folder)
    monkeypatch.setattr(threads, "_CGROUP", folder / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus), raising=False)


def test_two_threads_of_a_core_count_as_one(tmp_path, monkeypatch):
    machine(tmp_path, [0, 1, 2, 3], ["0,2", "1,3", "0,2", "1,3"], monkeypatch)
    assert threads.cores() == 2


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000"}, 4),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({}, 4),
    ],
)
def test_a_container_gets_no_more_threads_than_its_share(tmp_path, monkeypatch, files, expected):
    machine(tmp_path, [0, 1, 2, 3], ["0", "1", "2", "3"], monkeypatch)
    for name, text in files.items():
        file = tmp_path / "group" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="ascii")
    monkeypatch.setattr(threads, "_CGROUP", tmp_path / "group")
    assert threads.cores() == expected


def test_the_number_of_threads_is_lowered_and_never_raised(monkeypatch, unsaid):
    torch.set_num_threads(3)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    device.resolve("cpu")
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(threads, "cores", lambda: 8)
    device.resolve("cpu")
    assert torch.get_num_threads() == 2


def test_a_number_of_threads_that_the_user_set_stays(monkeypatch, unsaid):
    torch.set_num_threads(3)
    monkeypatch.setattr(threads, "cores", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    device.resolve("cpu")
    assert torch.get_num_threads() == 3


def test_a_gpu_without_bf16_computes_in_fp16_and_a_cpu_without_it_in_fp32(monkeypatch):
    monkeypatch.setattr(device, "_has_bf16", lambda _: False)
    assert device._best_precision(torch.device("cuda")) == "fp16"
    assert device.resolve("cpu").precision == "fp32"
    with pytest.raises(TrainingError, match="fp16 needs a CUDA device"):
        device.resolve("cpu", "fp16")


def test_a_gpu_multiplies_float32_in_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        device.resolve("cuda", "fp32")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
