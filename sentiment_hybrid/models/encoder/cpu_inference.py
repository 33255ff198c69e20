"""RoBERTa with weights laid out for inference on a CPU: float32, bfloat16 or int8, without padding.

It is faster because weights are cast, packed and quantised once instead of in every batch; query, key and value are
one product; and batches fit the caches. int8 uses torch's dynamically quantised products, the fastest on CPUs with
VNNI; with versions of torch without them, int8 is refused, and ONNX remains.
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


class Prepared:
    """The first ``layers`` layers of an encoder, with a copy of its current weights.

    Raises:
        ValueError: int8 is not supported by this torch or machine.
    """

    def __init__(self, model: Roberta, kind: Kind, *, layers: int) -> None:
        self.kind, self.layers = kind, layers
        self._embeddings = model.embeddings
        with torch.no_grad():
            packs = kind == "bf16" and _packs_bf16()
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
        self.heads: int = own.heads
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
        return _after(_Int8(weight, bias), activation)
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


def _packs_bf16() -> bool:
    """Whether torch supports packed bf16 weights, and this CPU the instructions that they need."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return there and processor.computes_bf16()


class _Int8:
    """Weights in int8 per output channel, activations in uint8 per token, sums in int32 (Jacob et al. 2018, section 2).

    Torch has one scale for all activations of a product, so each token is first divided by its largest value. On tweets
    this halves the number of labels that differ from float32, costs a tenth of the time, and makes a text nearly
    independent of the others in its batch.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        engine = processor.int8_engine()
        if engine is None:
            raise ValueError("this version of torch does not support int8 on this machine")
        self.bias = bias
        scales = (weight.abs().amax(1) / _INT8_MAX).clamp(min=_LEAST).double()
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about its deprecation; see the docstring of this file
            quantised = torch.quantize_per_channel(weight.contiguous(), scales, zeros, 0, torch.qint8)
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


def _after(linear: Linear, activation: Callable[[Tensor], Tensor] | None) -> Linear:
    return linear if activation is None else lambda states: activation(linear(states))


def _norm(norm: nn.LayerNorm) -> Linear:
    weight, bias = norm.weight.detach(), norm.bias.detach()
    shape, epsilon = tuple(norm.normalized_shape), norm.eps
    return lambda states: F.layer_norm(states, shape, weight, bias, epsilon)
