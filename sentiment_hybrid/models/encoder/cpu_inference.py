"""Encoders with weights laid out for inference on a CPU, which compute nothing for padding.

They are faster because weights are laid out once, see `cpu_products`; query, key and value are one product; and batches
fit the caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sentiment_hybrid.models import processor
from sentiment_hybrid.models.encoder import modernbert
from sentiment_hybrid.models.encoder.cpu_products import TOKENS, Kind, linear, norm
from sentiment_hybrid.models.encoder.roberta import Groups, Ragged, Roberta, attend_ragged

#: Products over tokens have one of 30 sizes: oneDNN and torch each cache 0.7 MB per size.
_size = partial(processor.kernel_size, least=16, most=128)


def has_layout(model: Any) -> bool:
    """Whether there is a layout for an encoder, ours or one of transformers."""
    return isinstance(model, Roberta) or modernbert.is_supported(model.config)


class CpuEncoder:
    """The first ``layers`` layers of an encoder that `has_layout`, with a copy of its current weights.

    Raises:
        ValueError: int8 is not supported by this torch or machine.
    """

    def __init__(self, model: Any, kind: Kind, *, layers: int) -> None:
        self.kind, self.layers = kind, layers
        with torch.no_grad():
            layout = _RobertaLayout if isinstance(model, Roberta) else modernbert.Layout
            self._layout: Any = layout(model, kind, layers=layers)
        self.hidden_size: int = model.config.hidden_size

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States (W, T, H) of ids (W, T) with a bool mask (W, T), padding last; zeros on padding."""
        ragged = Ragged.of(attention_mask)
        ids = ragged.take(input_ids)
        parts = [torch.zeros(0, self.hidden_size)]
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for part, groups in _parts(ragged.groups):
                real = part.stop - part.start
                padding = (0, _size(real) - real)
                position = F.pad(ragged.position[part], padding)
                parts.append(self._layout(F.pad(ids[part], padding), position, groups)[:real])
            return ragged.put(torch.cat(parts), attention_mask)


class _RobertaLayout:
    def __init__(self, model: Roberta, kind: Kind, *, layers: int) -> None:
        self._embed = model.embeddings.embed
        self._layers = [_RobertaLayer(layer, kind) for layer in model.encoder.layer[:layers]]

    def __call__(self, ids: Tensor, position: Tensor, groups: Groups) -> Tensor:
        """States (tokens, H) of concatenated ids (tokens,); those after ``groups`` are padding."""
        states = self._embed(ids, position)
        for layer in self._layers:
            states = layer(states, groups)
        return states


class _RobertaLayer:
    """One transformer layer over concatenated tokens; everything except the products stays in float32."""

    def __init__(self, layer: Any, kind: Kind) -> None:
        own, after = layer.attention.self, layer.attention.output
        projections = (own.query, own.key, own.value)
        weight = torch.cat([p.weight for p in projections])
        bias = torch.cat([p.bias for p in projections])
        self.heads: int = layer.heads
        self.dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        self.project = linear(weight, bias, kind=kind)
        self.mix = linear(after.dense.weight, after.dense.bias, kind=kind)
        wide, narrow = layer.intermediate.dense, layer.output.dense
        self.grow = linear(wide.weight, wide.bias, kind=kind, activation=layer.activation)
        self.shrink = linear(narrow.weight, narrow.bias, kind=kind)
        self.norms = [norm(after.LayerNorm), norm(layer.output.LayerNorm)]

    def __call__(self, states: Tensor, groups: Groups) -> Tensor:
        """(tokens, H) float32 -> (tokens, H) float32; overwrites its input."""
        query, key, value = self.project(states.to(self.dtype)).unflatten(-1, (3, self.heads, -1)).unbind(1)
        mixed = attend_ragged(groups, query, key, value, upcast=True)
        mixed = F.pad(mixed.to(self.dtype), (0, 0, 0, len(states) - len(mixed)))
        states = self.norms[0](states.add_(self.mix(mixed)))
        return self.norms[1](self.shrink(self.grow(states.to(self.dtype))).add(states))


def _parts(groups: Groups) -> Iterator[tuple[slice, Groups]]:
    """Runs of windows with about `TOKENS` tokens, as slices of the tokens and their groups."""
    start, size = 0, 0
    run: list[tuple[int, int]] = []
    for windows, length in groups:
        while windows:
            fitting = min(windows, max(1, (TOKENS - size) // length))
            if size and size + fitting * length > TOKENS:
                yield slice(start, start + size), tuple(run)
                start, size, run = start + size, 0, []
                continue
            run.append((fitting, length))
            size += fitting * length
            windows -= fitting
    if run:
        yield slice(start, start + size), tuple(run)
