"""ModernBERT (Warner et al. 2024) laid out for inference on a CPU; its weights are those of a model of transformers.

Norms stand before the sublayers, positions are rotations of queries and keys (Su et al. 2021), the feed-forward layer
is gated (Shazeer 2020), and in most layers a token attends only to those near it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentiment_hybrid.models.encoder.cpu_products import Kind, linear, norm
from sentiment_hybrid.models.encoder.roberta import Groups, attend_ragged

_LOCAL = "sliding_attention"


def is_supported(config: Any) -> bool:
    """Whether this file implements the encoder of a config; not if its rotations are scaled or its gate is no GELU."""
    if config.model_type != "modernbert" or config.hidden_activation != "gelu":
        return False
    rotations = getattr(config, "rope_parameters", None) or {}
    kinds = [rotations.get(kind) or {} for kind in getattr(config, "layer_types", None) or [_LOCAL]]
    return all(kind.get("rope_type") == "default" and "rope_theta" in kind for kind in kinds)


class Layout:
    """All layers, with a copy of the current weights of a ModernBertModel."""

    def __init__(self, model: Any, kind: Kind, *, layers: int) -> None:
        config = model.config
        self._words, self._first_norm = model.embeddings.tok_embeddings, norm(model.embeddings.norm)
        self._kinds = config.layer_types[:layers]
        half = torch.arange(0, config.hidden_size // config.num_attention_heads, 2) / 2
        self._rates = {
            name: config.rope_parameters[name]["rope_theta"] ** (-half / len(half)) for name in set(self._kinds)
        }  # (D / 2,) radians per token
        reach = {_LOCAL: config.local_attention // 2}
        self._layers = [
            _Layer(layer, kind, heads=config.num_attention_heads, reach=reach.get(name))
            for layer, name in zip(model.layers, self._kinds, strict=False)
        ]
        self._last_norm = norm(model.final_norm)

    def __call__(self, ids: Tensor, position: Tensor, groups: Groups) -> Tensor:
        """States (tokens, H) of concatenated ids (tokens,); those after ``groups`` are padding."""
        angles = {name: position[:, None] * rates for name, rates in self._rates.items()}  # (tokens, D / 2)
        turns = {name: torch.polar(torch.ones_like(angle), angle)[:, None, None] for name, angle in angles.items()}
        states = self._first_norm(self._words(ids))
        for layer, name in zip(self._layers, self._kinds, strict=True):
            states = layer(states, groups, turns[name])
        return self._last_norm(states)


class _Layer:
    """One layer over concatenated tokens; everything except the products stays in float32."""

    def __init__(self, layer: Any, kind: Kind, *, heads: int, reach: int | None) -> None:
        attention, gated = layer.attn, layer.mlp
        self.heads, self.reach = heads, reach
        self.dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        # The first layer has no norm of its own.
        self.before = norm(layer.attn_norm) if isinstance(layer.attn_norm, nn.LayerNorm) else nn.Identity()
        self.between = norm(layer.mlp_norm)
        self.project = linear(*(_paired(values, heads) for values in _parameters(attention.Wqkv)), kind=kind)
        self.mix = linear(*_parameters(attention.Wo), kind=kind)
        grow, gate = zip(*(whole.chunk(2) for whole in _parameters(gated.Wi)), strict=True)
        self.grow = linear(*grow, kind=kind, activation=F.gelu)
        self.gate = linear(*gate, kind=kind)
        self.shrink = linear(*_parameters(gated.Wo), kind=kind)

    def __call__(self, states: Tensor, groups: Groups, turns: Tensor) -> Tensor:
        """(tokens, H) float32 -> (tokens, H) float32; overwrites its input. ``turns`` (tokens, 1, 1, D / 2) complex."""
        projected = self.project(self.before(states).to(self.dtype)).unflatten(-1, (3, self.heads, -1))
        pairs = projected[:, :2].float().unflatten(-1, (-1, 2))  # (tokens, 2, heads, D / 2, 2)
        query, key = torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(-2).unbind(1)
        mixed = attend_ragged(groups, query, key, projected[:, 2], upcast=True, reach=self.reach)
        mixed = F.pad(mixed.to(self.dtype), (0, 0, 0, len(states) - len(mixed)))
        states = states.add_(self.mix(mixed))
        wide = self.between(states).to(self.dtype)
        return states.add_(self.shrink(self.grow(wide).mul_(self.gate(wide))))


def _parameters(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight, and bias or zeros: ModernBERT usually has none."""
    weight = layer.weight.detach()
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()


def _paired(values: Tensor, heads: int) -> Tensor:
    """Query, key and value (3 * H, ...) with the two dimensions that are turned together side by side.

    They are half a head apart. A product of queries and keys does not depend on the order of their dimensions.
    """
    query, key, value = values.unflatten(0, (3, heads, 2, -1))
    paired = (both.transpose(1, 2).reshape(-1, *values.shape[1:]) for both in (query, key))
    return torch.cat([*paired, value.flatten(0, 2)])
