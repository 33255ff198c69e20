"""A bidirectional GRU layer for training on CPUs, for which torch has no fused kernel.

Torch runs one direction after the other and accumulates the gradient of the recurrent weights at every step; here, a
step is one batched product for both directions, and that gradient is one product at the end.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def steps(gates: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """The recurrence (Cho et al. 2014, with the reset gate after the product, as in torch and cuDNN).

    Args:
        gates: (S, R, N, 3 * hidden), input contributions to the reset, update and new gates in R directions.
        weights: (R, 3 * hidden, hidden), recurrent.
        biases: (R, 3 * hidden), recurrent.

    Returns:
        Hidden states (S, R, N, hidden), starting from zeros, in the dtype of ``gates``. Differentiable once.
    """
    return cast(Tensor, _Steps.apply(gates, weights, biases))


class _Steps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
        size = weights.shape[-1]
        length, directions, rows, _ = gates.shape
        recurrent = weights.to(gates.dtype)
        across, bias = recurrent.transpose(1, 2).contiguous(), biases.to(gates.dtype).unsqueeze(1)
        hidden = gates.new_zeros(length + 1, directions, rows, size)
        switches = gates.new_empty(length, directions, rows, 2 * size)  # reset, update
        new, from_hidden = torch.empty_like(hidden[1:]), torch.empty_like(hidden[1:])
        with torch.autocast(gates.device.type, enabled=False):
            for at in range(length):
                own = torch.baddbmm(bias, hidden[at], across)
                torch.sigmoid(own[..., : 2 * size].add_(gates[at, ..., : 2 * size]), out=switches[at])
                reset, update = switches[at].split(size, -1)
                from_hidden[at] = own[..., 2 * size :]
                torch.tanh(torch.addcmul(gates[at, ..., 2 * size :], reset, from_hidden[at]), out=new[at])
                torch.addcmul(new[at], update, hidden[at] - new[at], out=hidden[at + 1])
        ctx.save_for_backward(recurrent, hidden, switches, new, from_hidden)
        ctx.types = (weights.dtype, biases.dtype)
        return hidden[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        recurrent, hidden, switches, new, from_hidden = ctx.saved_tensors
        size = recurrent.shape[-1]
        length, directions, rows, _ = gradient.shape
        of_gates = gradient.new_empty(length, directions, rows, 3 * size)
        of_hidden = torch.empty_like(of_gates)  # differs in the new gate, by the factor of the reset gate
        carried: Tensor | None = None
        for at in reversed(range(length)):
            reset, update = switches[at].split(size, -1)
            whole = gradient[at] if carried is None else gradient[at] + carried
            kept = whole * update
            into_new = torch.ops.aten.tanh_backward(whole - kept, new[at])
            into_switches = torch.cat([into_new * from_hidden[at], whole * (hidden[at] - new[at])], -1)
            into_switches = torch.ops.aten.sigmoid_backward(into_switches, switches[at])
            torch.cat([into_switches, into_new], -1, out=of_gates[at])
            torch.cat([into_switches, into_new * reset], -1, out=of_hidden[at])
            carried = torch.baddbmm(kept, of_hidden[at], recurrent)
        together = of_hidden.transpose(0, 1).flatten(1, 2)  # (R, S * N, 3 * hidden)
        of_weights = together.transpose(1, 2) @ hidden[:-1].transpose(0, 1).flatten(1, 2)
        return of_gates, of_weights.to(ctx.types[0]), together.sum(1, dtype=torch.float32).to(ctx.types[1])
