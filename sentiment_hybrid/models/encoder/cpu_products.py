"""Linear layers and norms with weights laid out for inference on a CPU: float32, bfloat16 or int8.

Weights are cast, packed and quantised once instead of in every batch. This file alone calls operators that torch does
not document; where one is missing, float32 and bf16 use plain products, and int8 uses the other of two ways or is
refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentiment_hybrid.models import processor

Kind = Literal["fp32", "bf16", "int8"]

#: The number of tokens processed together, so that their widest activations stay in a core's caches.
TOKENS = 2048
_INT8_MAX = 127
_LEAST = 1e-12  # lower bound of divisors

Linear = Callable[[Tensor], Tensor]


def linear(weight: Tensor, bias: Tensor, *, kind: Kind, activation: Callable[[Tensor], Tensor] | None = None) -> Linear:
    """A linear layer; where it is faster, its weights are in oneDNN's layout, and the activation is fused.

    Raises:
        ValueError: int8 is not supported by this torch or machine.
    """
    weight, bias = weight.detach(), bias.detach()
    if kind == "int8":
        return _after(_int8(weight, bias), activation)
    if kind == "bf16":
        weight, bias = weight.bfloat16(), bias.bfloat16()
    names: dict[Any, str] = {None: "none", F.gelu: "gelu", F.relu: "relu"}
    fused = names.get(activation)
    # Packed weights also in float32: there, products are 1.1 to 2 times as fast on x86.
    if fused is None or not processor.packs_weights() or (kind == "bf16" and not processor.computes_bf16()):
        return _after(lambda states: F.linear(states, weight, bias), activation)
    mkldnn = torch.ops.mkldnn
    packed = mkldnn._reorder_linear_weight(weight, TOKENS)
    algorithm = "none" if fused == "gelu" else ""
    return lambda states: cast(Tensor, mkldnn._linear_pointwise(states, packed, bias, fused, [], algorithm))


def _int8(weight: Tensor, bias: Tensor) -> Linear:
    """Weights in int8 per output channel, activations per token, sums in int32 (Jacob et al. 2018, section 2)."""
    scales = (weight.abs().amax(1) / _INT8_MAX).clamp(min=_LEAST)
    if (engine := processor.int8_engine()) is not None:
        return _QuantizedTensors(weight, bias, scales, engine)
    if processor.has_int8_products():
        return _Int8Products(weight, bias, scales)
    raise ValueError("this version of torch does not support int8 on this machine")


class _QuantizedTensors:
    """int8 by torch's quantised tensors, the fastest on CPUs with VNNI.

    Torch has one scale for all activations of a product, so each token is first divided by its largest value. On tweets
    this halves the number of labels that differ from float32, costs a tenth of the time, and makes a text nearly
    independent of the others in its batch.
    """

    def __init__(self, weight: Tensor, bias: Tensor, scales: Tensor, engine: str) -> None:
        self.bias = bias
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about its deprecation: `_Int8Products` will remain
            quantised = torch.quantize_per_channel(weight.contiguous(), scales.double(), zeros, 0, torch.qint8)
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = engine
        try:
            self.packed = torch.ops.quantized.linear_prepack(quantised, torch.zeros_like(bias))
        finally:
            torch.backends.quantized.engine = before
        # Without VNNI, pairs of products are added in 16 bits and may overflow, so activations have seven bits.
        self.reduce_range = not processor.has_vnni()

    def __call__(self, states: Tensor) -> Tensor:
        largest = states.abs().amax(-1, keepdim=True).clamp_(min=_LEAST)
        product = torch.ops.quantized.linear_dynamic(states / largest, self.packed, self.reduce_range)
        return torch.addcmul(self.bias, product, largest)


class _Int8Products:
    """int8 by oneDNN's product of plain tensors, for a torch without quantised tensors; about as fast."""

    def __init__(self, weight: Tensor, bias: Tensor, scales: Tensor) -> None:
        self.bias, self.scales = bias, scales
        whole = (weight / scales[:, None]).round_().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(whole, [TOKENS, weight.shape[1]])
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.largest = _INT8_MAX if processor.has_vnni() else _INT8_MAX // 2  # see `_QuantizedTensors`

    def __call__(self, states: Tensor) -> Tensor:
        step = states.abs().amax(-1, keepdim=True).clamp_(min=_LEAST).div_(self.largest)
        zero = self.largest + 1  # activations are unsigned: oneDNN has fast kernels for these alone
        whole = (states / step).round_().add_(zero).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, zero, self.packed, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.addcmul(self.bias, product, step)


def _after(linear: Linear, activation: Callable[[Tensor], Tensor] | None) -> Linear:
    return linear if activation is None else lambda states: activation(linear(states))


def norm(norm: nn.LayerNorm) -> Linear:
    """The function of a norm, in float32."""
    weight, bias = norm.weight.detach(), None if norm.bias is None else norm.bias.detach()
    shape, epsilon = tuple(norm.normalized_shape), norm.eps
    return lambda states: F.layer_norm(states, shape, weight, bias, epsilon)
