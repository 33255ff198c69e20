"""Recurrent layers over packed sequences: built with careful weights, and never reading padding."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


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
        _initialise(self.rnn)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Run over ``states`` (N, S, D_in) with ``lengths`` (N,) on the CPU; padding of the result is zero."""
        if self.training and self.dropout > 0.0:
            # One mask for all tokens of a row (Gal and Ghahramani 2016): wide frozen states are soon learned by heart.
            states = states * F.dropout(torch.ones_like(states[:, :1]), self.dropout)
        # An empty row would be refused; it reads one padded token, which its mask hides later.
        packed = pack_padded_sequence(states, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
        output, _ = self.rnn(packed)
        padded, _ = pad_packed_sequence(output, batch_first=True, total_length=states.shape[1])
        return padded


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
