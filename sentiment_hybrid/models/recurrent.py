"""Recurrent layers over sequences of any length: built with careful weights, and never reading padding."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment_hybrid.models import gru


class PackedRecurrence(nn.Module):
    """A bidirectional LSTM or GRU, (N, S, D_in) -> (N, S, 2 * hidden), that stops at each row's real end."""

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
        """Run over ``states`` (N, S, D_in) with ``lengths`` (N,) on the CPU; padding of the result is zero."""
        states = row_dropout(states, self.dropout, training=self.training)
        # An empty row would be refused; it reads one padded token, which its mask hides later.
        lengths = lengths.clamp(min=1)
        return self._both_ways(states, lengths) if states.device.type == "cpu" else self._packed(states, lengths)

    def _packed(self, states: Tensor, lengths: Tensor) -> Tensor:
        """As torch packs sequences: what cuDNN is fast at."""
        packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
        output, _ = self.rnn(packed)
        padded, _ = pad_packed_sequence(output, batch_first=True, total_length=states.shape[1])
        return padded

    def _both_ways(self, states: Tensor, lengths: Tensor) -> Tensor:
        """The same from plain rows, for which a CPU has fast kernels that know no packing.

        Read from its first token on, a row's real tokens come before its padding and cannot see it; for the other
        direction it is turned round within its own length, which leaves the padding at its end again.
        """
        steps = torch.arange(states.shape[1])  # (S,)
        ends = lengths.unsqueeze(1)  # (N, 1)
        turned = torch.where(steps < ends, ends - 1 - steps, steps)  # (N, S), its own inverse
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
        """Both directions of one layer in step, (N, S, hidden) each, the second in the order of ``turned``."""
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
        how = (
            True,
            1,
            0.0,
            self.training,
            False,
            True,
        )  # biases, layers, dropout, training, bidirectional, batch first
        if isinstance(self.rnn, nn.LSTM):
            return torch.lstm(states, (start, start), weights, *how)[0]
        return torch.gru(states, start, weights, *how)[0]


def row_dropout(states: Tensor, share: float, *, training: bool) -> Tensor:
    """Dropout with one mask for all tokens of a row of ``states`` (N, S, D) (Gal and Ghahramani 2016).

    Noise that differs from token to token is soon averaged out by a recurrence, and a maximum over tokens picks its
    peaks, which are gone when the model is used.
    """
    if not training or share == 0.0:
        return states
    return states * F.dropout(torch.ones_like(states[:, :1]), share)


def _turn(states: Tensor, turned: Tensor) -> Tensor:
    """``states`` (N, S, D) with its tokens in the order of ``turned`` (N * S,), which is its own inverse."""
    if torch.is_grad_enabled() and states.requires_grad:
        return cast(Tensor, _Turn.apply(states, turned))
    return states.flatten(0, 1).index_select(0, turned).unflatten(0, states.shape[:2])


class _Turn(torch.autograd.Function):
    """Backwards it is the same turn: no need to add up, as the gradient of any other choice of rows must."""

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
    """Xavier inputs, orthogonal recurrence (Saxe 2013) gate by gate, and an LSTM that starts by remembering."""
    size = rnn.hidden_size
    for name, weight in rnn.named_parameters():
        if name.startswith("bias"):
            weight.zero_()
            # Forget bias 1: Jozefowicz 2015, section 4.1. torch orders the gates input, forget, cell, output.
            if isinstance(rnn, nn.LSTM) and name.startswith("bias_ih"):
                weight[size : 2 * size] = 1.0
            continue
        start = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
        for gate in weight.split(size):
            start(gate)
