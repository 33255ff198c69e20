"""Encoder and heads for ONNX export, in operations whose sizes depend on the input tensors only.

They share the classifier's weights. Where it counts on the CPU and loops over rows, tensors are gathered here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment_hybrid.errors import ModelError
from sentiment_hybrid.models.attention import AdditiveAttention, SelfAttention, masked_max, masked_mean, masked_softmax
from sentiment_hybrid.models.han import HanHead
from sentiment_hybrid.models.linear import LinearHead
from sentiment_hybrid.models.lstm import LstmHead

if TYPE_CHECKING:
    from sentiment_hybrid.models.classifier import Classifier
    from sentiment_hybrid.models.recurrent import PackedRecurrence


class OnnxClassifier(nn.Module):
    """Token ids -> logits, with the weights of ``classifier``; for ``torch.onnx.export``.

    Raises:
        ModelError: there is no export for its head.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        if not isinstance(classifier.head, LstmHead | HanHead | LinearHead):
            raise ModelError(f"there is no export for a {type(classifier.head).__name__}")
        self.encoder = classifier.encoder
        self.head = classifier.head
        self.temperature = classifier.temperature
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, text_index: Tensor) -> Tensor:
        """Logits (B, C) of ``input_ids`` (W, T), ``attention_mask`` (W, T) and ``text_index`` (W,), all int64.

        Every window has at least one real token, and its padding is last; ``text_index`` is non-decreasing from 0
        without gaps.
        """
        mask = attention_mask.bool()  # (W, T)
        states = self.encoder(input_ids, mask).float()  # (W, T, H)
        if isinstance(self.head, LstmHead):
            logits = _lstm(self.head, states, mask, text_index)
        elif isinstance(self.head, HanHead):
            logits = _han(self.head, states, mask, text_index)
        else:
            logits = _linear(self.head, states, mask, text_index)
        return logits / self.temperature


def _linear(head: LinearHead, states: Tensor, mask: Tensor, text_index: Tensor) -> Tensor:
    tokens, _, real = _rows_of_texts(states, mask, text_index)
    return cast(Tensor, head.output(masked_mean(tokens, real)))


def _lstm(head: LstmHead, states: Tensor, mask: Tensor, text_index: Tensor) -> Tensor:
    tokens, counts, real = _rows_of_texts(states, mask, text_index)  # (B, S, H), (B,), (B, S)
    read = _recurrence(head.lstm, head.norm(tokens), counts)  # (B, S, 2 * hidden)
    mixed = head.attention_norm(read + _self_attention(head.attention, read, real))
    pooled = torch.cat([masked_mean(mixed, real), masked_max(mixed, real)], dim=-1)
    return cast(Tensor, head.mlp(pooled))


def _han(head: HanHead, states: Tensor, mask: Tensor, text_index: Tensor) -> Tensor:
    read = _recurrence(head.words, head.norm(states), mask.long().sum(1))  # (W, T, D)
    vectors = _attended(head.word_attention, read, mask)  # (W, D)
    one_each = torch.ones_like(mask[:, :1])  # (W, 1): every window has a token
    rows, counts, real = _rows_of_texts(vectors.unsqueeze(1), one_each, text_index)  # (B, M, D), (B,), (B, M)
    read = rows + _recurrence(head.windows, rows, counts)
    return cast(Tensor, head.output(_attended(head.window_attention, read, real)))


def _rows_of_texts(states: Tensor, mask: Tensor, text_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The real tokens of each text, concatenated: states (B, S, D), counts (B,), and the mask (B, S)."""
    per_window = mask.long().sum(1)  # (W,)
    texts = torch.zeros_like(text_index[:1]).expand(cast(int, text_index[-1] + 1))  # (B,)
    counts = texts.scatter_add(0, text_index, per_window)  # (B,)
    first = counts.cumsum(0) - counts  # (B,) tokens of all earlier texts
    # In a traced graph, a size is a tensor.
    steps = torch.arange(cast(int, counts.max()), device=mask.device)  # (S,)
    real = steps < counts.unsqueeze(1)  # (B, S)
    # Tokens are in the order of their texts, so those of a text start after all earlier ones.
    tokens = mask.flatten().nonzero().squeeze(1)  # (K,)
    place = (first.unsqueeze(1) + steps) * real  # (B, S)
    return states.flatten(0, 1)[tokens[place]] * real.unsqueeze(-1), counts, real


def _recurrence(layers: PackedRecurrence, states: Tensor, counts: Tensor) -> Tensor:
    """As PackedRecurrence; the exporter converts packed sequences to one node with lengths."""
    packed = pack_padded_sequence(states, counts.cpu(), batch_first=True, enforce_sorted=False)
    output, _ = layers.rnn(packed)
    return pad_packed_sequence(output, batch_first=True)[0]


def _self_attention(layer: SelfAttention, states: Tensor, mask: Tensor) -> Tensor:
    query, key, value = (
        project(states).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for project in (layer.query, layer.key, layer.value)
    )  # (B, heads, S, D / heads)
    weights = masked_softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, mask[:, None, None, :])
    return cast(Tensor, layer.output((weights @ value).transpose(1, 2).flatten(2)))


def _attended(layer: AdditiveAttention, states: Tensor, mask: Tensor) -> Tensor:
    return cast(Tensor, layer(states, mask)[0])
