"""Device, precision and threads: what the machine has, and never against what the user said."""

from __future__ import annotations

import joblib
import pytest
import torch

from sentiment_hybrid.engine import device
from sentiment_hybrid.errors import TrainingError
from sentiment_hybrid.models import processor
from sentiment_hybrid.models.encoder.module import Encoder
from sentiment_hybrid.models.encoder.roberta import Architecture, Roberta

pytestmark = pytest.mark.processor

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


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
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(device.processor, "has_bf16_instructions", lambda: False)
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


def test_a_guest_restores_what_it_lowers_when_the_last_has_left(monkeypatch, unsaid):
    torch.set_num_threads(3)
    monkeypatch.setattr(joblib, "cpu_count", lambda only_physical_cores: 2)
    first, second = device.choose("cpu"), device.choose("cpu", "fp32")
    assert torch.get_num_threads() == 3
    with first.borrowed():
        with second.borrowed():
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3


def test_bf16_is_refused_where_the_processor_cannot_compute_it(monkeypatch):
    monkeypatch.setattr(processor, "computes_bf16", lambda: False)
    with pytest.raises(TrainingError, match="bf16 requires a processor with AVX-512") as caught:
        device.choose("cpu", "bf16")
    assert processor.name() in caught.value.message
    assert caught.value.hint == "Set the precision to auto or fp32."
    assert device.choose("cpu").precision == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_recurrence_runs_in_each_precision_that_is_not_refused(precision):
    try:
        compute = device.choose("cpu", precision)
    except TrainingError:
        assert not processor.computes_bf16()
        return
    states = torch.randn(2, 5, 8, requires_grad=True)
    for kind in (torch.nn.LSTM, torch.nn.GRU):
        with compute.autocast():
            output = kind(8, 4, batch_first=True, bidirectional=True)(states)[0]
        output.float().sum().backward()
    assert states.grad.isfinite().all()


def test_what_is_chosen_by_itself_is_what_the_instructions_speed_up():
    expected = "bf16" if processor.has_bf16_instructions() else "fp32"
    assert device.choose("cpu").precision == expected
    assert processor.computes_bf16() or expected == "fp32"
    if "AVX2" in processor.name():  # as .ci/run has it, or for real
        assert processor.computes_bf16() or not processor.has_vnni()


@pytest.mark.parametrize(
    ("version", "warned"), [("2.5.1", 1), ("2.6.0", 0), ("2.15.0+cu132", 0), ("2.16.0", 1), ("3.0.0a0+git1", 1)]
)
def test_an_untried_torch_gives_one_warning_with_the_range_that_was_tried(version, warned, monkeypatch, caplog):
    monkeypatch.setattr(torch, "__version__", version)
    device._check_version.cache_clear()
    for _ in range(2):
        device.choose("cpu", "fp32")
    assert [record.getMessage() for record in caplog.records] == warned * [
        f"torch {version} is untried: this program was tested with torch 2.6 to 2.15"
    ]
    device._check_version.cache_clear()


@pytest.fixture
def arm(monkeypatch):
    """An Arm processor such as Apple's: no oneDNN, no AVX, and a torch.cpu that knows neither."""
    monkeypatch.setattr(processor.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    for probe in ("_is_avx512_bf16_supported", "_is_vnni_supported"):
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    monkeypatch.setattr(processor, "_ENGINES", ("qnnpack",))


def test_a_processor_without_onednn_computes_in_fp32_by_itself_and_in_each_precision_that_is_not_refused(arm):
    assert device.choose("cpu").precision == "fp32"
    own = Encoder(Roberta(Architecture({**SMALL, "model_type": "roberta"})).eval(), 0).eval()
    ids, mask = torch.randint(5, 60, (4, 9)), torch.ones(4, 9, dtype=torch.bool)
    plain = own(ids, mask)
    for precision in ("fp32", "bf16", "int8"):
        with device.choose("cpu", precision).layout(own):
            torch.testing.assert_close(own(ids, mask).float(), plain, atol=0.06, rtol=0)
