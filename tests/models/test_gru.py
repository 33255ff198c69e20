"""The GRU that trains on CPUs: torch's own results and gradients, in any type."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sentiment_hybrid.models.recurrent import PackedRecurrence


def rows(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.randn(len(lengths), max(lengths), 5), torch.tensor(lengths)


def run(module: PackedRecurrence, way: str, states: torch.Tensor, lengths: torch.Tensor):
    """Output and gradients of a loss that weighs every real value differently."""
    module.zero_grad()
    states = states.clone().requires_grad_()
    output = (module._packed if way == "packed" else module._both_ways)(states, lengths)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    (output.float() * weights).sum().backward()
    return output, {"input": states.grad, **{name: value.grad for name, value in module.named_parameters()}}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("lengths", [[7, 3, 1, 7], [1], [4, 4]])
def test_values_and_gradients_are_those_of_torch(layers, lengths):
    torch.manual_seed(1)
    module = PackedRecurrence("gru", 5, hidden=6, layers=layers)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    states, ends = rows(lengths)
    wanted, wanted_gradients = run(module, "packed", states, ends)
    got, gradients = run(module, "both", states, ends)
    torch.testing.assert_close(got, wanted)
    assert gradients.keys() == wanted_gradients.keys()
    for name, gradient in wanted_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.processor
def test_half_precision_gives_nearly_the_same():
    module = PackedRecurrence("gru", 5, hidden=6)
    states, ends = rows([7, 3, 1, 7])
    exact, exact_gradients = run(module, "both", states, ends)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, rough_gradients = run(module, "both", states, ends)
    torch.testing.assert_close(rough.float(), exact, atol=0.03, rtol=0.05)
    for name, gradient in exact_gradients.items():
        assert rough_gradients[name].dtype == gradient.dtype
        torch.testing.assert_close(rough_gradients[name], gradient, atol=0.2, rtol=0.1)


def test_training_and_use_agree():
    module = PackedRecurrence("gru", 5, hidden=6)
    states, ends = rows([7, 3, 1, 7])
    trained = module._both_ways(states, ends)
    with torch.no_grad():
        torch.testing.assert_close(module._both_ways(states, ends), trained)


def test_an_lstm_goes_on_as_before():
    torch.manual_seed(1)
    module = PackedRecurrence("lstm", 5, hidden=6)
    assert isinstance(module.rnn, nn.LSTM)
    states, ends = rows([7, 3, 1])
    torch.testing.assert_close(run(module, "both", states, ends)[0], run(module, "packed", states, ends)[0])
