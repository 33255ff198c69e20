"""Bidirectional recurrent layers over padded sequences, independent of the padding."""

from __future__ import annotations

import functools
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment_hybrid.models import gru, processor

#: Tokens that an LSTM reads per call on a CPU in inference, and the steps between its numbers of tokens and of rows:
#: oneDNN caches 0.2 MB for each pair of these numbers.
_TOKENS_AT_ONCE, _TOKEN_STEP = 16, 4
_rows = functools.partial(processor.kernel_size, least=4, most=128)


class PackedRecurrence(nn.Module):
    """A bidirectional LSTM or GRU, (N, S, D_in) -> (N, S, 2 * hidden), that ignores padding."""

    def __init__(
        self, cell: Literal["lstm", "gru"], input_size: int, *, hidden: int, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.rnn: nn.RNNBase = kind(
            input_size,
            hidden,
            num_layers=layers,
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=True,
            batch_first=True,
        )
        if not self.rnn.weight_hh_l0.is_meta:
            _initialise(self.rnn)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Run over ``states`` (N, S, D_in) with ``lengths`` (N,) on the CPU; the padding of the result is zero."""
        states = row_dropout(states, self.dropout, training=self.training)
        # Empty rows are not allowed; such a row reads one padded token, which is masked later.
        lengths = lengths.clamp(min=1)
        return self._both_ways(states, lengths) if states.device.type == "cpu" else self._packed(states, lengths)

    def _packed(self, states: Tensor, lengths: Tensor) -> Tensor:
        """With packed sequences, for which cuDNN is fast."""
        packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
        output, _ = self.rnn(packed)
        padded, _ = pad_packed_sequence(output, batch_first=True, total_length=states.shape[1])
        return padded

    def _both_ways(self, states: Tensor, lengths: Tensor) -> Tensor:
        """The same with padded sequences, for which CPUs have fast kernels.

        Forward, the real tokens of a row come before its padding and do not depend on it. For the backward direction,
        a row is reversed within its length, so that its padding is again at the end.
        """
        steps = torch.arange(states.shape[1])  # (S,)
        ends = lengths.unsqueeze(1)  # (N, 1)
        turned = torch.where(steps < ends, ends - 1 - steps, steps)  # (N, S), a self-inverse permutation
        turned = (turned + torch.arange(len(states)).unsqueeze(1) * states.shape[1]).flatten()  # (N * S,)
        for layer in range(self.rnn.num_layers):
            if layer > 0:
                states = F.dropout(states, self.rnn.dropout, self.training)
            if isinstance(self.rnn, nn.GRU) and torch.is_grad_enabled():
                there, back = self._gru(states, turned, layer)
            else:
                there = self._one_way(states, f"l{layer}")  # (N, S, hidden)
                back = self._one_way(_turn(states, turned), f"l{layer}_reverse")  # (N, S, hidden)
            states = torch.cat([there, _turn(back, turned)], dim=-1)  # (N, S, 2 * hidden)
        return states * (steps < ends).unsqueeze(-1)

    def _gru(self, states: Tensor, turned: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Both directions of one layer, (N, S, hidden) each, the second one in the order of ``turned``."""
        ends = (f"l{layer}", f"l{layer}_reverse")
        inputs, recurrent, biases, recurrent_biases = (
            [getattr(self.rnn, f"{kind}_{end}") for end in ends]
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        there, back = F.linear(states, torch.cat(inputs), torch.cat(biases)).chunk(2, -1)  # (N, S, 3 * hidden)
        gates = torch.stack([there.transpose(0, 1), _turn(back, turned).transpose(0, 1)], 1)  # (S, 2, N, 3 * hidden)
        hidden = gru.steps(gates, torch.stack(recurrent), torch.stack(recurrent_biases))  # (S, 2, N, hidden)
        return hidden[:, 0].transpose(0, 1), hidden[:, 1].transpose(0, 1)

    def _one_way(self, states: Tensor, suffix: str) -> Tensor:
        """One direction of one layer over padded rows."""
        weights = [getattr(self.rnn, f"{kind}_{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        start = states.new_zeros(1, len(states), self.rnn.hidden_size)
        how = (True, 1, 0.0, self.training, False, True)  # bias, layers, dropout, training, bidirectional, batch_first
        if isinstance(self.rnn, nn.GRU):
            return torch.gru(states, start, weights, *how)[0]
        if torch.is_grad_enabled():
            return torch.lstm(states, (start, start), weights, *how)[0]
        rows, tokens = len(states), states.shape[1]
        states = F.pad(states, (0, 0, 0, -tokens % _TOKEN_STEP, 0, _rows(rows) - rows))
        hidden = cell = states.new_zeros(1, len(states), self.rnn.hidden_size)
        parts = []
        for part in states.split(_TOKENS_AT_ONCE, dim=1):
            found, hidden, cell = torch.lstm(part, (hidden, cell), weights, *how)
            parts.append(found)
        return torch.cat(parts, 1)[:rows, :tokens]


def row_dropout(states: Tensor, share: float, *, training: bool) -> Tensor:
    """Dropout with one mask for all tokens of a row of ``states`` (N, S, D) (Gal and Ghahramani 2016).

    A recurrent layer averages out noise that differs between tokens, and max pooling selects its peaks, which do not
    occur in evaluation.
    """
    if not training or share == 0.0:
        return states
    return states * F.dropout(torch.ones_like(states[:, :1]), share)


def _turn(states: Tensor, turned: Tensor) -> Tensor:
    """``states`` (N, S, D) with its tokens permuted by the self-inverse ``turned`` (N * S,)."""
    if torch.is_grad_enabled() and states.requires_grad:
        return cast(Tensor, _Turn.apply(states, turned))
    return states.flatten(0, 1).index_select(0, turned).unflatten(0, states.shape[:2])


class _Turn(torch.autograd.Function):
    """Its backward pass is the same permutation, which is faster than index_select's, an index_add."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, turned: Tensor) -> Tensor:
        ctx.save_for_backward(turned)
        return states.flatten(0, 1).index_select(0, turned).unflatten(0, states.shape[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (turned,) = ctx.saved_tensors
        return gradient.flatten(0, 1).index_select(0, turned).unflatten(0, gradient.shape[:2]), None


@torch.no_grad()
def _initialise(rnn: nn.RNNBase) -> None:
    """Xavier input weights, orthogonal recurrent weights (Saxe 2013) per gate, and a forget bias of 1."""
    size = rnn.hidden_size
    for name, weight in rnn.named_parameters():
        if name.startswith("bias"):
            weight.zero_()
            # Jozefowicz 2015, section 4.1. torch orders the gates input, forget, cell, output.
            if isinstance(rnn, nn.LSTM) and name.startswith("bias_ih"):
                weight[size : 2 * size] = 1.0
            continue
        start = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
        for gate in weight.split(size):
            start(gate)
