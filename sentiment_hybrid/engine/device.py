"""Device, precision and threads, resolved once per run; training and prediction ask here and nowhere else."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import joblib
import torch

from sentiment_hybrid import distributed
from sentiment_hybrid.borrowed import Borrowed
from sentiment_hybrid.errors import TrainingError
from sentiment_hybrid.models import processor

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sentiment_hybrid.models.encoder.module import Encoder

log = logging.getLogger(__name__)

#: The oldest and the newest version of torch that `.ci/torch_versions` has run the tests with.
TRIED = ("2.6", "2.15")
#: Tokens that take longer to compute than an encoder's weights take to be cast and packed.
_WORTH_A_LAYOUT = 4096

Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True)
class Compute:
    """Device and precision of a run."""

    device: torch.device
    precision: Precision

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which forward passes run; int8 is no autocast, but a layout of the encoder's weights."""
        if self.precision in ("fp32", "int8"):
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def layout(self, encoder: Encoder | None, *, tokens: float = math.inf) -> AbstractContextManager[None]:
        """Within, the encoder's weights are laid out for inference, if ``tokens`` are enough to pay for it, or int8.

        Raises:
            EncoderError: int8, and this encoder has none.
        """
        few = tokens < _WORTH_A_LAYOUT and not (self.precision == "int8" and tokens)
        if encoder is None or few or self.precision == "fp16":
            return nullcontext()
        return encoder.prepared(self.precision)

    def borrowed(self) -> Borrowed:
        """The context in which another program's process computes: torch's settings are restored at its end."""
        return _BORROWED[self.device.type]

    def describe(self) -> dict[str, str | int]:
        """Device, precision, threads and processes for meta.json; bit-equal resuming needs the same ones."""
        facts: dict[str, str | int] = {"device": self.device.type, "precision": self.precision}
        facts["threads"] = torch.get_num_threads()
        return {**facts, "processes": distributed.world()} if distributed.world() > 1 else facts


def resolve(device: str = "auto", precision: str = "auto") -> Compute:
    """As `choose`, and change the settings of torch accordingly, for the whole process."""
    compute = choose(device, precision)
    _configure(compute.device.type)
    return compute


def choose(device: str = "auto", precision: str = "auto") -> Compute:
    """Resolve ``auto`` for this machine; int8 is for inference only.

    Raises:
        TrainingError: the device is not available, or does not support the precision.
    """
    _check_version(torch.__version__)
    chosen = _device(device)
    if precision == "auto":
        return Compute(chosen, _best_precision(chosen))
    reason = _refusal(chosen, precision)
    if reason:
        others = " or ".join(["auto", *(other for other in ("fp32", "bf16") if not _refusal(chosen, other))])
        export = ", or use an exported model: senthy export, --backend onnx" if precision == "int8" else ""
        raise TrainingError(reason, hint=f"Set the precision to {others}{export}.")
    return Compute(chosen, precision)  # type: ignore[arg-type]


@functools.cache
def _check_version(version: str) -> None:
    """Warn once of a torch that is older or newer than those tried."""
    oldest, newest, ours = (tuple(map(int, one.split(".")[:2])) for one in (*TRIED, version))
    if not oldest <= ours <= newest:
        log.warning("torch %s is untried: this program was tested with torch %s to %s", version, *TRIED)


def _refusal(device: torch.device, precision: str) -> str:
    """Why this device cannot compute in a precision; empty if it can."""
    if precision not in get_args(Precision):
        return f"there is no precision {precision!r}"
    if precision == "fp16" and device.type != "cuda":
        return f"fp16 requires a CUDA device, but this run uses {_described(device)}"
    if precision == "bf16" and device.type == "cpu" and not processor.computes_bf16():
        return f"bf16 requires a processor with AVX-512, but this run uses {_described(device)}"
    if precision == "int8" and (device.type != "cpu" or not processor.computes_int8()):
        return f"this build of torch does not support int8 on {_described(device)}"
    return ""


def _described(device: torch.device) -> str:
    return f"cpu ({processor.name()})" if device.type == "cpu" else device.type


def accelerator(compute: Compute) -> Accelerator:
    """A new Accelerator of this process: its state has one precision, so it cannot be shared by runs."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    if not distributed.joined():
        distributed.forget_mpi()
    # The connection of several processes is kept; see `distributed.join`.
    AcceleratorState._reset_state(reset_partial_state=not distributed.joined())
    return Accelerator(
        mixed_precision={"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[compute.precision],
        cpu=compute.device.type == "cpu",
        # No buffer changes in training, so none needs to be sent at every step.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def _configure(device: str) -> Callable[[], None]:
    """Set the precision of products on a GPU, or the threads on a CPU; returns a function that restores it."""
    if device == "cuda":
        before = torch.get_float32_matmul_precision()
        # float32 products in TF32 are 8 times as fast, and precise enough for training.
        torch.set_float32_matmul_precision("high")
        return lambda: torch.set_float32_matmul_precision(before)
    threads = torch.get_num_threads()
    if device == "cpu" and not any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")):
        # torch also counts hardware threads of one core and cores that a container may not use, and waits for them.
        torch.set_num_threads(min(threads, joblib.cpu_count(only_physical_cores=True)))
        return lambda: torch.set_num_threads(threads)
    return lambda: None


_BORROWED = {kind: Borrowed(partial(_configure, kind)) for kind in ("cpu", "cuda", "mps")}


def _device(name: str) -> torch.device:
    if name == "auto" and distributed.must_use_cpu():
        return torch.device("cpu")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", distributed.local_rank())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in _BORROWED:
        raise TrainingError(f"there is no device {name!r}", hint="Use auto, cpu, cuda (or cuda:1) or mps.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError("no CUDA device is available", hint="Use --device auto or --device cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise TrainingError("no Apple GPU (mps) is available", hint="Use --device auto or --device cpu.")
    return device


def _best_precision(device: torch.device) -> Precision:
    if device.type == "cuda":
        # GPUs before Ampere have matrix units for fp16 alone; its range is narrow, so the loss is scaled.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and processor.has_bf16_instructions() else "fp32"
