"""What this processor and this torch compute. ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY are respected."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch

#: Engines of torch's quantised products, the fastest first.
_ENGINES = ("onednn", "x86", "fbgemm", "qnnpack")


def name() -> str:
    """The instruction set that torch uses, such as AVX2 or AVX512."""
    return torch.backends.cpu.get_cpu_capability()


def computes_bf16() -> bool:
    """Whether all layers run in bf16; oneDNN's recurrent layers need AVX-512 (or Arm's bf16 instructions)."""
    if not torch.backends.mkldnn.is_available():
        return True
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(probe()) if probe is not None else "AVX512" in name()


def has_bf16_instructions() -> bool:
    """Whether bf16 is faster than float32; without bf16 instructions it is emulated, several times slower."""
    return computes_bf16() and _has("_is_avx512_bf16_supported")


def has_vnni() -> bool:
    """Whether int8 products are accumulated in 32 bits; without VNNI, pairs are added in 16 bits and may overflow."""
    # oneDNN does not report VNNI, but if it is limited to AVX2, it has no bf16 either.
    return _has("_is_vnni_supported") and computes_bf16()


def packs_weights() -> bool:
    """Whether torch has oneDNN's products with packed weights, on a processor on which they are faster."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return _is_x86() and torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, it) for it in names)


@functools.cache
def mkl_is_slow() -> bool:
    """Whether torch's float32 products are slower than oneDNN's: MKL does not use AVX-512 on AMD's processors."""
    return name() == "AVX512" and packs_weights() and "AuthenticAMD" in _vendor()


def int8_engine() -> str | None:
    """The fastest engine for torch's quantised tensors on this machine, or None; torch is to lose these tensors."""
    has_product = hasattr(torch.ops.quantized, "linear_dynamic") and hasattr(torch, "quantize_per_channel")
    there = [engine for engine in _ENGINES if engine in torch.backends.quantized.supported_engines]
    return there[0] if has_product and there else None


def has_int8_products() -> bool:
    """Whether this torch has oneDNN's int8 products of plain tensors, which need x86."""
    names = ("qlinear_prepack", "qlinear_pointwise")
    return _is_x86() and torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.onednn, it) for it in names)


def computes_int8() -> bool:
    """Whether int8 is supported, by one way or the other."""
    return int8_engine() is not None or has_int8_products()


def kernel_size(size: int, *, least: int, most: int) -> int:
    """The size to which ``size`` rows are padded: a multiple of a power of two from ``least`` to ``most``, about an
    eighth of them.

    oneDNN caches the kernels of the last 1,024 sizes that it has seen, so memory would grow with each new one.
    """
    step = min(most, max(least, (1 << size.bit_length()) >> 3))
    return -(-size // step) * step


def _vendor() -> str:
    """Text with the vendor of the processor, as its cpuid instruction has it."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        return platform.processor()  # on Windows


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64") and name() in ("AVX2", "AVX512")


def _has(probe: str) -> bool:
    """What a function of torch.cpu says of the processor; False if this torch does not have it."""
    function = getattr(torch.cpu, probe, None)
    return bool(function and function())
