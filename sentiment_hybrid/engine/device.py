"""Device, precision and threads, resolved once per run; training and prediction ask here and nowhere else."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import joblib
import torch

from sentiment_hybrid import distributed
from sentiment_hybrid.errors import TrainingError
from sentiment_hybrid.models.encoder.cpu_inference import int8_engine

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sentiment_hybrid.models.encoder.module import Encoder

#: Tokens that take longer to compute than an encoder's weights take to be cast and packed.
_WORTH_A_LAYOUT = 4096

Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True)
class Compute:
    """What a run computes on; ``describe()`` goes into its meta.json."""

    device: torch.device
    precision: Precision

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which forward passes run; int8 is no autocast, but a layout of the encoder's weights."""
        if self.precision in ("fp32", "int8"):
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def layout(self, encoder: Encoder | None, *, tokens: int) -> AbstractContextManager[None]:
        """Within, the encoder's weights lie ready for inference, where ``tokens`` are enough to pay for it, or int8.

        Raises:
            EncoderError: int8, and this encoder has none.
        """
        few = tokens < _WORTH_A_LAYOUT and not (self.precision == "int8" and tokens)
        if encoder is None or few or self.precision == "fp16":
            return nullcontext()
        return encoder.prepared(self.precision)

    def describe(self) -> dict[str, str | int]:
        """Device, precision, threads and processes, as bit-equal resuming needs them to be the same."""
        facts: dict[str, str | int] = {"device": self.device.type, "precision": self.precision}
        facts["threads"] = torch.get_num_threads()
        return {**facts, "processes": distributed.world()} if distributed.world() > 1 else facts


def resolve(device: str = "auto", precision: str = "auto") -> Compute:
    """Turn ``auto`` into what this machine has; int8 is for applying a model, not for training one.

    Raises:
        TrainingError: the device is not there, or cannot compute in the precision asked for.
    """
    chosen = _device(device)
    if chosen.type == "cuda":
        # float32 products through the matrix units in TF32: 8 times as fast, and training does not miss the digits.
        torch.set_float32_matmul_precision("high")
    if chosen.type == "cpu":
        _limit_threads()
    if precision == "auto":
        return Compute(chosen, _best_precision(chosen))
    if precision == "fp16" and chosen.type != "cuda":
        raise TrainingError(
            f"fp16 requires a CUDA device, but this run uses {chosen.type}", hint="Set precision to auto, bf16 or fp32."
        )
    if precision == "int8" and (chosen.type != "cpu" or int8_engine() is None):
        raise TrainingError(
            f"this build of torch does not support int8 on {chosen.type}",
            hint="Set the precision to auto, bf16 or fp32, or use an exported model: senthy export, --backend onnx.",
        )
    return Compute(chosen, precision)  # type: ignore[arg-type]


def accelerator(compute: Compute) -> Accelerator:
    """The accelerate object of this process; one process cannot hold two precisions, so none is kept across runs."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs

    if not distributed.joined():
        distributed.forget_mpi()
    # What connects several processes is made once; see `distributed.join`.
    AcceleratorState._reset_state(reset_partial_state=not distributed.joined())
    return Accelerator(
        mixed_precision={"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[compute.precision],
        cpu=compute.device.type == "cpu",
        dataloader_config=DataLoaderConfiguration(),
        # No buffer of ours changes in training, so none needs to be sent at every step.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def _limit_threads() -> None:
    """Lower torch's number of threads to the cores that this process may use, unless the user has set a number.

    torch also counts hardware threads of one core and cores that a container may not use: waiting for them is slower.
    """
    if not any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")):
        torch.set_num_threads(min(torch.get_num_threads(), joblib.cpu_count(only_physical_cores=True)))


def _device(name: str) -> torch.device:
    if name == "auto" and distributed.must_use_cpu():
        return torch.device("cpu")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", distributed.local_rank())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("no CUDA device is available", hint="Use --device auto or --device cpu.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise TrainingError("no Apple GPU (mps) is available", hint="Use --device auto or --device cpu.")
    return torch.device(name)


def _best_precision(device: torch.device) -> Precision:
    if _has_bf16(device):
        return "bf16"
    # GPUs before Ampere have matrix units for fp16 alone; its range is narrow, so the loss is scaled.
    return "fp16" if device.type == "cuda" else "fp32"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Without the instructions, bf16 on a CPU is emulated and several times slower than float32.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())
