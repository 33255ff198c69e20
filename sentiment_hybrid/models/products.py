"""Linear layers for training in float32 with oneDNN's products, where those that torch uses are slower.

Torch multiplies float32 matrices with MKL, which uses AVX2 alone on processors that are not Intel's: where they have
AVX-512, oneDNN is twice as fast.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentiment_hybrid.models import processor

_size = partial(processor.kernel_size, least=16, most=1024)


class Linear(nn.Linear):
    """``nn.Linear``, the same values up to rounding."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """(..., D_in) -> (..., D_out)."""
        plain = (
            torch.is_autocast_enabled("cpu")
            or not torch.is_grad_enabled()
            or torch.jit.is_tracing()
            or not processor.mkl_is_slow()
        )
        if plain or input.device.type != "cpu" or input.dtype != torch.float32 or not input.numel():
            return F.linear(input, self.weight, self.bias)
        return cast(Tensor, _Product.apply(input, self.weight, self.bias))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight)
        return _multiply(_padded(states), weight, bias)[: states.shape[:-1].numel()].view(
            *states.shape[:-1], len(weight)
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        of_output = _padded(gradient)
        of_states = of_weight = None
        if ctx.needs_input_grad[0]:
            of_states = _multiply(of_output, weight.t())[: states.shape[:-1].numel()].view_as(states)
        if ctx.needs_input_grad[1]:
            of_weight = _multiply(of_output.t(), _padded(states).t())
        return of_states, of_weight, of_output.sum(0) if ctx.needs_input_grad[2] else None


def _multiply(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], ""))


def _padded(states: Tensor) -> Tensor:
    """(..., D) -> (N, D) with zeros at the end, in one of few sizes: see `processor.kernel_size`."""
    flat = states.reshape(-1, states.shape[-1])
    return F.pad(flat, (0, 0, 0, _size(len(flat)) - len(flat)))
