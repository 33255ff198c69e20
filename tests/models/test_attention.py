"""Attention comes to the same by either kernel, and its summary is for reading alone."""

from __future__ import annotations

import pytest
import torch

from sentiment_hybrid.models import attention
from sentiment_hybrid.models.attention import SelfAttention


@pytest.mark.parametrize("length", [5, 200])
def test_the_kernel_changes_no_state_and_no_gradient(monkeypatch, length):
    torch.manual_seed(0)
    module = SelfAttention(8, heads=2)
    mask = torch.arange(length) < torch.tensor([length, length - 3, 1, 0])[:, None]
    found = []
    for plain_up_to in (0, 1000):
        monkeypatch.setattr(attention, "_PLAIN_UP_TO", plain_up_to)
        torch.manual_seed(1)
        states = torch.randn(4, length, 8, requires_grad=True)
        module.zero_grad()
        attended, _ = module(states, mask)
        (attended * mask.unsqueeze(-1)).square().sum().backward()
        found.append([attended, states.grad, *(weight.grad.clone() for weight in module.parameters())])
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-4)


def test_what_tokens_receive_is_computed_outside_training_alone():
    module = SelfAttention(8, heads=2)
    states, mask = torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    _, received = module.eval()(states, mask)
    torch.testing.assert_close(received.sum(1), torch.ones(2))
    _, unread = module.train()(states, mask)
    assert unread.shape == received.shape
    assert not unread.any()
