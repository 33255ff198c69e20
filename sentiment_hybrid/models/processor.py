"""The precisions this processor supports. ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY are respected."""

from __future__ import annotations

import torch

#: Engines of torch's quantised products, the fastest first.
_ENGINES = ("onednn", "x86", "fbgemm", "qnnpack")


def name() -> str:
    """The instruction set that torch uses, such as AVX2 or AVX512."""
    return torch.backends.cpu.get_cpu_capability()


def computes_bf16() -> bool:
    """Whether all layers run in bf16; oneDNN's recurrent layers need AVX-512 (or Arm's bf16 instructions)."""
    return not torch.backends.mkldnn.is_available() or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_bf16_instructions() -> bool:
    """Whether bf16 is faster than float32; without bf16 instructions it is emulated, several times slower."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return computes_bf16() and bool(probe and probe())


def has_vnni() -> bool:
    """Whether int8 products are accumulated in 32 bits; without VNNI, pairs are added in 16 bits and may overflow."""
    # oneDNN does not report VNNI, but if it is limited to AVX2, it has no bf16 either.
    return bool(torch.cpu._is_vnni_supported()) and computes_bf16()


def int8_engine() -> str | None:
    """The fastest engine for torch's quantised products on this machine, or None."""
    has_product = hasattr(torch.ops.quantized, "linear_dynamic")
    there = [engine for engine in _ENGINES if engine in torch.backends.quantized.supported_engines]
    return there[0] if has_product and there else None


def kernel_size(size: int, *, least: int, most: int) -> int:
    """The size to which ``size`` rows are padded: a multiple of a power of two from ``least`` to ``most``, about an
    eighth of them.

    oneDNN caches the kernels of the last 1,024 sizes that it has seen, so memory would grow with each new one.
    """
    step = min(most, max(least, (1 << size.bit_length()) >> 3))
    return -(-size // step) * step
