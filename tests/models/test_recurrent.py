"""The recurrence reads what is real, in both directions, and nothing else, however it is computed."""

from __future__ import annotations

import pytest
import torch

from sentiment_hybrid.models.recurrent import PackedRecurrence


@pytest.fixture(params=["lstm", "gru"])
def recurrence(request: pytest.FixtureRequest) -> PackedRecurrence:
    torch.manual_seed(0)
    return PackedRecurrence(request.param, 6, hidden=5, layers=2)


def test_plain_rows_and_packed_rows_give_the_same_states_and_gradients(recurrence):
    lengths = torch.tensor([7, 1, 4, 9])
    states = torch.randn(4, 9, 6)
    results = []
    for way in (recurrence._packed, recurrence._both_ways):
        given = states.clone().requires_grad_()
        recurrence.zero_grad()
        output = way(given, lengths)
        (output * torch.arange(10.0)).sum().backward()
        results.append([output, given.grad, *(weight.grad.clone() for weight in recurrence.parameters())])
    for packed, plain in zip(*results, strict=True):
        torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-5)


def test_what_stands_in_padding_reaches_no_state_and_no_gradient(recurrence):
    lengths = torch.tensor([3, 5])
    states = torch.randn(2, 5, 6)
    filled = states.clone()
    filled[0, 3:] = 1e6
    filled.requires_grad_()
    output = recurrence(filled, lengths)
    torch.testing.assert_close(output, recurrence(states, lengths))
    assert not output[0, 3:].any()
    output.sum().backward()
    assert not filled.grad[0, 3:].any()


def test_dropout_between_layers_acts_while_training_only():
    torch.manual_seed(0)
    recurrence = PackedRecurrence("lstm", 6, hidden=5, layers=2, dropout=0.5)
    states, lengths = torch.randn(2, 4, 6), torch.tensor([4, 4])
    assert not torch.equal(recurrence(states, lengths), recurrence(states, lengths))
    recurrence.eval()
    assert torch.equal(recurrence(states, lengths), recurrence(states, lengths))


def test_row_dropout_drops_the_same_features_of_every_token_and_nothing_in_use():
    from sentiment_hybrid.models.recurrent import row_dropout

    torch.manual_seed(0)
    states = torch.ones(3, 5, 40)
    dropped = row_dropout(states, 0.5, training=True)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert row_dropout(states, 0.5, training=False) is states


def test_an_lstm_starts_by_remembering_and_a_gru_without_any_bias(recurrence):
    """torch adds two biases to each gate; the forget gate is the second of an LSTM's four."""
    biases = {name: value for name, value in recurrence.named_parameters() if "bias" in name}
    assert len(biases) == 2 * 2 * 2, "of two layers, two directions, inputs and states"
    for name, bias in biases.items():
        if "bias_ih" not in name:
            continue
        gates = (bias + biases[name.replace("bias_ih", "bias_hh")]).detach().unflatten(0, (-1, 5))
        expected = torch.zeros_like(gates)
        if len(gates) == 4:
            expected[1] = 1.0
        assert torch.equal(gates, expected), name


def test_inference_gives_the_same_states_with_few_sizes_of_kernels(monkeypatch):
    """A size of its own for every batch would fill the memory of a server with kernels."""
    torch.manual_seed(0)
    recurrence = PackedRecurrence("lstm", 6, hidden=5).eval()
    used, lstm = set(), torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda states, *rest: used.add(states.shape[:2]) or lstm(states, *rest))
    for rows, tokens in [(1, 1), (3, 5), (9, 4), (2, 40), *((rows, 2048 // rows) for rows in range(20, 200, 3))]:
        states, lengths = torch.randn(rows, tokens, 6), torch.randint(0, tokens + 1, (rows,))
        with torch.inference_mode():
            found = recurrence(states, lengths)
        torch.testing.assert_close(found, recurrence._packed(states, lengths.clamp(min=1)), rtol=1e-4, atol=1e-5)
    assert len({rows for rows, _ in used}) <= 20
    assert {tokens for _, tokens in used} <= {4, 8, 12, 16}
