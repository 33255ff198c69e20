"""Device, precision and threads: what the machine has, and never against what the user said."""

from __future__ import annotations

import joblib
import pytest
import torch

from sentiment_hybrid.engine import device
from sentiment_hybrid.errors import TrainingError


@pytest.fixture
def unsaid(monkeypatch):
    """Nobody has set a number of threads."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_is_lowered_and_never_raised(monkeypatch, unsaid):
    torch.set_num_threads(3)
    monkeypatch.setattr(joblib, "cpu_count", lambda only_physical_cores: 2)
    device.resolve("cpu")
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(joblib, "cpu_count", lambda only_physical_cores: 8)
    device.resolve("cpu")
    assert torch.get_num_threads() == 2


def test_a_number_of_threads_that_the_user_set_stays(monkeypatch, unsaid):
    torch.set_num_threads(3)
    monkeypatch.setattr(joblib, "cpu_count", lambda only_physical_cores: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    device.resolve("cpu")
    assert torch.get_num_threads() == 3


def test_a_gpu_without_bf16_computes_in_fp16_and_a_cpu_without_it_in_fp32(monkeypatch):
    monkeypatch.setattr(device, "_has_bf16", lambda _: False)
    assert device._best_precision(torch.device("cuda")) == "fp16"
    assert device.resolve("cpu").precision == "fp32"
    with pytest.raises(TrainingError, match="fp16 requires a CUDA device"):
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
