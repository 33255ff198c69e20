"""RoBERTa with weights laid out for inference on a CPU: float32, bfloat16 or int8, without padding.

It is faster because weights are cast, packed and quantised once instead of in every batch; query, key and value are
one product; and batches fit the caches. This file alone calls operators that torch does not document; where one is
missing, float32 and bf16 use plain products, and int8 uses the other of two ways or is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentiment_hybrid.models import processor
from sentiment_hybrid.models.encoder.roberta import Ragged, Roberta, attend_ragged

Kind = Literal["fp32", "bf16", "int8"]

#: The number of tokens processed together, so that their widest activations stay in a core's caches.
_TOKENS = 2048
#: Products over tokens have one of 30 sizes: oneDNN and torch each cache 0.7 MB per size.
_size = partial(processor.kernel_size, least=16, most=128)
_INT8_MAX = 127
_LEAST = 1e-12  # lower bound of divisors

Linear = Callable[[Tensor], Tensor]


class CpuEncoder:
    """The first ``layers`` layers of an encoder, with a copy of its current weights.

    Raises:
        ValueError: int8 is not supported by this torch or machine.
    """

    def __init__(self, model: Roberta, kind: Kind, *, layers: int) -> None:
        self.kind, self.layers = kind, layers
        self._embeddings = model.embeddings
        with torch.no_grad():
            packs = _packs(kind)
            self._layers = [_Layer(layer, kind, packs=packs) for layer in model.encoder.layer[:layers]]

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States (W, T, H) of ids (W, T) with a bool mask (W, T), padding last; zeros on padding."""
        ragged = Ragged.of(attention_mask)
        ids = ragged.take(input_ids)
        parts = []
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for part, groups in _parts(ragged.groups):
                real = part.stop - part.start
                padding = (0, _size(real) - real)
                states = self._embeddings.embed(F.pad(ids[part], padding), F.pad(ragged.position[part], padding))
                for layer in self._layers:
                    states = layer(states, groups)
                parts.append(states[:real])
            flat = torch.cat(parts) if parts else self._embeddings.LayerNorm.weight.new_zeros(0, self.hidden_size)
            return ragged.put(flat, attention_mask)

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self._embeddings.LayerNorm.weight.shape[0])


class _Layer:
    """One transformer layer over concatenated tokens; everything except the products stays in float32."""

    def __init__(self, layer: Any, kind: Kind, *, packs: bool) -> None:
        linear = partial(_linear, kind=kind, packs=packs)
        own, after = layer.attention.self, layer.attention.output
        projections = (own.query, own.key, own.value)
        weight = torch.cat([p.weight for p in projections])
        bias = torch.cat([p.bias for p in projections])
        self.heads: int = layer.heads
        self.dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        self.project = linear(weight, bias)
        self.mix = linear(after.dense.weight, after.dense.bias)
        self.grow = linear(layer.intermediate.dense.weight, layer.intermediate.dense.bias, activation=layer.activation)
        self.shrink = linear(layer.output.dense.weight, layer.output.dense.bias)
        self.norms = [_norm(norm) for norm in (after.LayerNorm, layer.output.LayerNorm)]

    def __call__(self, states: Tensor, groups: tuple[tuple[int, int], ...]) -> Tensor:
        """(tokens, H) float32 -> (tokens, H) float32; overwrites its input. Tokens after ``groups`` are padding."""
        query, key, value = self.project(states.to(self.dtype)).unflatten(-1, (3, self.heads, -1)).unbind(1)
        mixed = attend_ragged(groups, query, key, value, upcast=True)
        mixed = F.pad(mixed.to(self.dtype), (0, 0, 0, len(states) - len(mixed)))
        states = self.norms[0](states.add_(self.mix(mixed)))
        return self.norms[1](self.shrink(self.grow(states.to(self.dtype))).add(states))


def _parts(groups: tuple[tuple[int, int], ...]) -> Iterator[tuple[slice, tuple[tuple[int, int], ...]]]:
    """Runs of windows with about `_TOKENS` tokens, as slices of the tokens and their groups."""
    start, size = 0, 0
    run: list[tuple[int, int]] = []
    for windows, length in groups:
        while windows:
            fitting = min(windows, max(1, (_TOKENS - size) // length))
            if size and size + fitting * length > _TOKENS:
                yield slice(start, start + size), tuple(run)
                start, size, run = start + size, 0, []
                continue
            run.append((fitting, length))
            size += fitting * length
            windows -= fitting
    if run:
        yield slice(start, start + size), tuple(run)


def _linear(
    weight: Tensor, bias: Tensor, *, kind: Kind, packs: bool, activation: Callable[[Tensor], Tensor] | None = None
) -> Linear:
    """A linear layer; with ``packs``, its weights are in oneDNN's layout, and the activation is fused."""
    weight, bias = weight.detach(), bias.detach()
    if kind == "int8":
        return _after(_int8(weight, bias), activation)
    if kind == "bf16":
        weight, bias = weight.bfloat16(), bias.bfloat16()
    names: dict[Any, str] = {None: "none", F.gelu: "gelu", F.relu: "relu"}
    fused = names.get(activation)
    if fused is None or not packs:
        return _after(lambda states: F.linear(states, weight, bias), activation)
    mkldnn = torch.ops.mkldnn
    packed = mkldnn._reorder_linear_weight(weight, _TOKENS)
    algorithm = "none" if fused == "gelu" else ""
    return lambda states: cast(Tensor, mkldnn._linear_pointwise(states, packed, bias, fused, [], algorithm))


def _packs(kind: Kind) -> bool:
    """Whether products with packed weights are used: in float32 too, where they are 1.1 to 2 times as fast on x86."""
    return processor.packs_weights() and (kind == "fp32" or (kind == "bf16" and processor.computes_bf16()))


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
        self.packed = torch.ops.onednn.qlinear_prepack(whole, [_TOKENS, weight.shape[1]])
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


def _norm(norm: nn.LayerNorm) -> Linear:
    weight, bias = norm.weight.detach(), norm.bias.detach()
    shape, epsilon = tuple(norm.normalized_shape), norm.eps
    return lambda states: F.layer_norm(states, shape, weight, bias, epsilon)
