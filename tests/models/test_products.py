"""Linear layers by oneDNN: the values and gradients of torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sentiment_hybrid.models import processor, products

pytestmark = [
    pytest.mark.processor,
    pytest.mark.skipif(not processor.packs_weights(), reason="this torch or processor has no such products"),
]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_values_and_gradients_are_those_of_a_plain_layer(rows, size, out, bias_alone):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "mkl_is_slow", lambda: True)
        own = products.Linear(size, out)
        plain = nn.Linear(size, out)
        plain.load_state_dict(own.state_dict())
        own.weight.requires_grad_(not bias_alone)
        states = torch.randn(*rows, size)
        found = []
        for layer in (own, plain):
            given_states = states.clone().requires_grad_(not bias_alone)
            output = layer(given_states)
            (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
            gradients = [layer.bias.grad] if bias_alone else [p.grad for p in (*layer.parameters(), given_states)]
            found.append([output.detach(), *gradients])
        torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-4)


def test_other_precisions_and_passes_without_gradient_are_torchs_own(monkeypatch):
    monkeypatch.setattr(processor, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(products, "_multiply", None)
    layer = products.Linear(4, 3)
    with torch.no_grad():
        assert layer(torch.ones(2, 4)).shape == (2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.ones(2, 4)).dtype == torch.bfloat16
    assert layer.double()(torch.ones(2, 4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "vendor", "slow"),
    [
        ("AVX512", "vendor_id\t: AuthenticAMD", True),
        ("AVX512", "vendor_id\t: GenuineIntel", False),
        ("AVX2", "vendor_id\t: AuthenticAMD", False),
        ("AVX512", "", False),
    ],
)
def test_mkl_is_slow_with_avx512_on_processors_of_amd(name, vendor, slow, monkeypatch):
    monkeypatch.setattr(processor, "name", lambda: name)
    monkeypatch.setattr(processor, "_vendor", lambda: vendor)
    assert processor.mkl_is_slow.__wrapped__() is slow
