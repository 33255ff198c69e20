"""Dropout: the share that was asked for, the mean kept, and the same again from the same seed."""

from __future__ import annotations

import pytest
import torch

from sentiment_hybrid.models.dropout import Dropout, dropout


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(400, 250), (3, 5)])
def test_a_share_becomes_zero_and_the_rest_grows_so_that_the_mean_stays(share, dtype, shape):
    torch.manual_seed(0)
    states = torch.ones(shape, dtype=dtype, requires_grad=True)
    thinned = dropout(states, share)
    assert thinned.dtype == dtype
    assert sorted(set(thinned.tolist()[0])) == pytest.approx([0.0, 1 / (1 - share)], rel=0.01)
    if states.numel() > 1000:
        assert (thinned == 0).float().mean().item() == pytest.approx(share, abs=0.005)
        assert not torch.equal(thinned[0], thinned[1])
    thinned.sum().backward()
    assert torch.equal(states.grad, thinned.detach())


def test_the_same_seed_gives_the_same_values_and_the_next_call_others():
    states = torch.ones(100, 100)
    torch.manual_seed(1)
    first, second = dropout(states, 0.3), dropout(states, 0.3)
    torch.manual_seed(1)
    assert torch.equal(dropout(states, 0.3), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_outside_training_or_at_share_0():
    states = torch.randn(100, 100)
    assert torch.equal(Dropout(0.5).eval()(states), states)
    assert torch.equal(Dropout(0.0).train()(states), states)
    assert not Dropout(1.0).train()(states).any()
