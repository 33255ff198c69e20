"""ModernBERT laid out for inference: the states of transformers' own, at every length."""

from __future__ import annotations

import pytest
import torch

from sentiment_hybrid.errors import EncoderError
from sentiment_hybrid.models.encoder import cpu_inference, modernbert
from sentiment_hybrid.models.encoder.module import Encoder

#: Largest deviation of a state, which a norm has scaled to about 1.
pytestmark = pytest.mark.processor
TOLERANCE = {"fp32": 2e-5, "bf16": 0.06, "int8": 0.12}
REACH = 4


def encoder(**changes) -> Encoder:
    """Three layers, of which the last two are local, with weights that all differ from where they start."""
    from transformers import ModernBertConfig, ModernBertModel

    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    given = {**sizes, **tokens, "intermediate_size": 48, "local_attention": 2 * REACH, **changes}
    torch.manual_seed(5)
    model = ModernBertModel(ModernBertConfig(**given, attn_implementation="sdpa"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Encoder(model.eval(), 0).eval()


def batch(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    return torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(1)), mask


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_states_are_those_of_transformers_at_every_length(kind, monkeypatch):
    monkeypatch.setattr(cpu_inference, "TOKENS", 256)  # several parts
    own = encoder()
    ids, mask = batch([*range(1, 40), 127, 128, 129, 300])
    plain = own(ids, mask)[mask]
    with own.prepared(kind):
        laid_out = own(ids, mask)
    torch.testing.assert_close(laid_out[mask].float(), plain, atol=TOLERANCE[kind], rtol=0)
    assert (laid_out[~mask] == 0).all()


@pytest.mark.parametrize(
    "changes", [{"norm_bias": True}, {"attention_bias": True}, {"mlp_bias": True}, {"global_attn_every_n_layers": 1}]
)
def test_every_bias_and_layers_without_local_attention_are_computed(changes):
    own = encoder(**changes)
    ids, mask = batch([3, 20, 7])
    plain = own(ids, mask)[mask]
    with own.prepared("fp32"):
        torch.testing.assert_close(own(ids, mask)[mask], plain, atol=TOLERANCE["fp32"], rtol=0)


def test_what_is_not_computed_here_is_left_to_transformers():
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    usual = {"rope_type": "default", "rope_theta": 1e4}
    config = encoder(rope_parameters={"full_attention": scaled, "sliding_attention": usual}).model.config
    assert not modernbert.is_supported(config)
    other = encoder(hidden_activation="silu")
    assert not modernbert.is_supported(other.model.config)
    with (
        pytest.raises(EncoderError, match="usual ModernBERT encoders only, not this modernbert"),
        other.prepared("int8"),
    ):
        pass
    assert modernbert.is_supported(encoder().model.config)
