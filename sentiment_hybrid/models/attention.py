"""Masked attention and pooling over (N, S, D); padding always has weight zero."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The number of queries whose weights are in memory at once in `received_attention`.
_QUERIES_AT_ONCE = 256
#: On a CPU, rows of at most this many tokens use two matrix products. At the length of tweets, these train about twice
#: as fast as the fused kernel, whose blocks are then mostly empty; the kernel is faster from about 200 tokens.
_PLAIN_UP_TO = 128


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension in float32; 0 where ``mask`` is False, and all 0 in a row without True."""
    scores = scores.float().masked_fill(~mask, torch.finfo(torch.float32).min)
    return scores.softmax(-1) * mask


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``states`` (N, S, D) over real tokens: (N, D); zero for a row without any."""
    weights = mask.unsqueeze(-1).to(states.dtype)  # (N, S, 1)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def masked_max(states: Tensor, mask: Tensor) -> Tensor:
    """Maximum of ``states`` (N, S, D) over real tokens: (N, D); zero for a row without any."""
    highest = states.masked_fill(~mask.unsqueeze(-1), torch.finfo(states.dtype).min).amax(1)  # (N, D)
    return highest * mask.any(1, keepdim=True)


def uniform(mask: Tensor) -> Tensor:
    """Equal weights over the real tokens of ``mask`` (N, S)."""
    weights = mask.float()
    return weights / weights.sum(1, keepdim=True).clamp(min=1.0)


class AdditiveAttention(nn.Module):
    """Attention with a learned context vector (Yang et al. 2016, eq. 5-7 and 8-10).

    ``u = tanh(W h + b)``, ``alpha = softmax(u . context)``, ``vector = sum alpha h``.
    """

    def __init__(self, size: int, *, starts_as_average: bool = False) -> None:
        super().__init__()
        self.project = nn.Linear(size, size)
        self.context = nn.Parameter(torch.zeros(size))
        if not starts_as_average and not self.context.is_meta:
            nn.init.normal_(self.context, std=size**-0.5)

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """From ``states`` (N, S, D) and ``mask`` (N, S): the vector (N, D) and the weights (N, S), float32."""
        scores = torch.tanh(self.project(states)) @ self.context  # (N, S)
        weights = masked_softmax(scores, mask)  # (N, S)
        return (weights.unsqueeze(-1) * states).sum(1), weights


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product self-attention (Vaswani et al. 2017) over (N, S, D)."""

    def __init__(self, size: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # A bias of the keys would cancel in the softmax and never be trained.
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size)
        self.output = nn.Linear(size, size)

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """From ``states`` (N, S, D) and ``mask`` (N, S): attended states (N, S, D) and attention (N, S).

        The attention is that which each token receives, averaged over heads and real queries, without gradient; in
        training it is not used, and 0.
        """
        keys_mask = mask.clone()
        keys_mask[:, 0] = True  # affects only rows without real tokens, whose softmax would be 0 / 0
        query, key, value = (self._split(project(states)) for project in (self.query, self.key, self.value))
        mixed = attend(query, key, value, keys_mask[:, None, None, :])
        attended = self.output(mixed.transpose(1, 2).flatten(2))  # (N, S, D)
        if self.training:
            return attended, torch.zeros_like(mask, dtype=torch.float32)
        return attended, received_attention(query.detach(), key.detach(), mask)

    def _split(self, states: Tensor) -> Tensor:
        """(N, S, D) -> (N, heads, S, D / heads)."""
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, keys_mask: Tensor) -> Tensor:
    """Scaled dot-product attention over (N, heads, S, D), with ``keys_mask`` True for visible keys.

    The implementation depends on device and length; results are equal up to rounding.
    """
    if query.device.type != "cpu" or query.shape[2] > _PLAIN_UP_TO:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=keys_mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (N, heads, S, S)
    return scores.masked_fill(~keys_mask, float("-inf")).softmax(-1) @ value


@torch.no_grad()
def received_attention(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Attention that each key receives, averaged over heads and real queries: (N, S), float32.

    ``query`` and ``key`` are (N, heads, S, D / heads). Computed in slices, since a text of 4,000 tokens has 16 million
    weights per head.
    """
    per_query = uniform(mask)  # (N, S)
    received = torch.zeros_like(per_query)
    keys_mask = mask[:, None, None, :]
    for start in range(0, mask.shape[1], _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        scores = query[:, :, part] @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (N, heads, Q, S)
        weights = masked_softmax(scores, keys_mask).mean(1)  # (N, Q, S)
        received += (per_query[:, part].unsqueeze(-1) * weights).sum(1)
    return received
