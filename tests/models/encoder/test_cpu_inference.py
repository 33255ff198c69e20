"""Weights laid out for inference: the same states as the plain way, within what the precision allows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.errors import EncoderError
from sentiment_hybrid.models import processor
from sentiment_hybrid.models.encoder import cpu_inference
from sentiment_hybrid.models.encoder.module import Encoder
from sentiment_hybrid.models.encoder.roberta import Architecture, Roberta

#: Largest deviation of a state, which a norm has scaled to about 1.
pytestmark = pytest.mark.processor
TOLERANCE = {"fp32": 1e-5, "bf16": 0.03, "int8": 0.06}


def encoder(layers=0, act="gelu") -> Encoder:
    torch.manual_seed(5)
    document = {
        "model_type": "roberta",
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 220,
        "hidden_act": act,
    }
    return Encoder(Roberta(Architecture(document)).eval(), layers).eval()


def batch(lengths):
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    return torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(1)), mask


@pytest.mark.parametrize("act", ["gelu", "relu"])
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_states_are_those_of_the_plain_way(kind, act, monkeypatch):
    monkeypatch.setattr(cpu_inference, "TOKENS", 64)  # several parts, and a window longer than a part
    own = encoder(act=act)
    ids, mask = batch([7, 3, 18, 3, 1, 200, 20, 20, 20])
    plain = own(ids, mask)[mask]
    with own.prepared(kind):
        laid_out = own(ids, mask)
    torch.testing.assert_close(laid_out[mask].float(), plain, atol=TOLERANCE[kind], rtol=0)
    assert (laid_out[~mask] == 0).all()
    assert torch.equal(own(ids, mask)[mask], plain)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_a_torch_without_undocumented_operators_computes_the_same(kind, monkeypatch):
    """Newer versions of torch are to lose quantised tensors, and may lose any operator that it does not document."""
    monkeypatch.setattr(processor, "int8_engine", lambda: None)
    monkeypatch.setattr(processor, "packs_weights", lambda: False)
    if kind == "int8" and not processor.has_int8_products():
        pytest.skip("this processor has no other int8 products")
    own = encoder()
    ids, mask = batch([7, 3, 18, 3, 1, 200, 20])
    plain = own(ids, mask)[mask]
    with own.prepared(kind):
        torch.testing.assert_close(own(ids, mask)[mask].float(), plain, atol=TOLERANCE[kind], rtol=0)


def test_int8_without_any_of_its_operators_is_refused(monkeypatch):
    monkeypatch.setattr(processor, "int8_engine", lambda: None)
    monkeypatch.setattr(processor, "has_int8_products", lambda: False)
    with pytest.raises(ValueError, match="does not support int8"), encoder().prepared("int8"):
        pass


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_a_text_does_not_depend_on_where_in_the_batch_it_stands(kind):
    own = encoder()
    ids, mask = batch([9, 4, 9, 12])
    with own.prepared(kind):
        there = own(ids, mask).float()
        turned = own(ids.flip(0), mask.flip(0)).float().flip(0)
    torch.testing.assert_close(turned, there, atol=TOLERANCE[kind], rtol=0)


def test_layers_that_are_trained_are_not_laid_out():
    own = encoder(layers=1)
    ids, mask = batch([7, 3])
    with own.prepared("fp32"), torch.no_grad():
        before = own(ids, mask)[mask]
        with torch.no_grad():
            for parameter in own.model.encoder.layer[1].parameters():
                parameter.mul_(1.5)
        assert not torch.allclose(own(ids, mask)[mask], before)


def test_training_does_not_use_the_layout():
    own = encoder(layers="all").train()
    ids, mask = batch([7, 3])
    with own.prepared("fp32"):
        own(ids, mask)[mask].square().sum().backward()
    assert all(parameter.grad is not None for parameter in own.parameters())


def test_one_layout_serves_calls_within_calls():
    own = encoder()
    with own.prepared("fp32"):
        first = own._cpu_encoder
        with own.prepared("fp32"):
            assert own._cpu_encoder is first
        assert own._cpu_encoder is first
    assert own._cpu_encoder is None


def test_bf16_runs_where_the_cpu_lacks_what_packed_weights_need(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refuse)
    own = encoder()
    ids, mask = batch([7, 3])
    plain = own(ids, mask)[mask]
    with own.prepared("bf16"):
        torch.testing.assert_close(own(ids, mask)[mask].float(), plain, atol=TOLERANCE["bf16"], rtol=0)


def test_int8_of_another_family_is_refused():
    from transformers import DistilBertConfig, DistilBertModel

    distil = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=16))
    with pytest.raises(EncoderError, match="not this distilbert"), Encoder(distil, 0).prepared("int8"):
        pass


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 500)), max_size=8))
def test_parts_cover_every_token_once_and_are_no_larger_than_they_may(groups):
    parts = list(cpu_inference._parts(tuple(groups)))
    places = [place for part, _ in parts for place in (part.start, part.stop)]
    assert places == sorted(places) and places[:1] in ([], [0])
    assert (places[-1] if places else 0) == sum(windows * length for windows, length in groups)
    for part, inside in parts:
        assert part.stop - part.start == sum(windows * length for windows, length in inside) <= cpu_inference.TOKENS


@given(st.integers(1, 4096))
def test_products_have_few_sizes_hardly_larger_than_their_tokens(tokens):
    size = cpu_inference._size(tokens)
    assert 0 <= size - tokens < max(16, tokens / 4)
    assert cpu_inference._size(size) == size


def test_products_of_a_part_have_at_most_thirty_sizes():
    assert len({cpu_inference._size(tokens) for tokens in range(1, cpu_inference.TOKENS + 1)}) <= 30
