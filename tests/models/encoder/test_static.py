"""Static encoders: what their vectors are, and that nothing but the token before changes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.config.schema import Encoder as EncoderConfig
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.inference.attribution import attribute
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.engine.training.optim import build_optimizer
from sentiment_hybrid.errors import ConfigError, EncoderError
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import LoadedEncoder, load_encoder, load_encoder_dir, save_encoder
from sentiment_hybrid.models.encoder.module import Encoder, encoder_fingerprint, max_positions
from sentiment_hybrid.models.encoder.static import Static

BASE_SIZE = 16  # of the states of the tiny encoder


def of(base: Path, size: int = 8, **settings: int) -> LoadedEncoder:
    return load_encoder(EncoderConfig(name="static", static={"base": str(base), "size": size, **settings}))


@pytest.fixture(scope="module")
def loaded(tiny_encoder_dir: Path) -> LoadedEncoder:
    return of(tiny_encoder_dir)


@pytest.fixture(scope="module")
def alone(tiny_encoder_dir: Path) -> torch.Tensor:
    """The mean state of each ordinary token as a text of its own, centred."""
    base = load_encoder_dir(tiny_encoder_dir)
    special = base.tokenizer.all_special_ids
    start, end = base.tokenizer.bos_token_id, base.tokenizer.eos_token_id
    encoder, states = Encoder(base.model), []
    for token in range(len(base.tokenizer)):
        if token not in special:
            row = torch.tensor([[start, token, end]])
            states.append(encoder(row, torch.ones_like(row))[0].mean(0))
    found = torch.stack(states).double()
    return found - found.mean(0)


def table_of(loaded: LoadedEncoder) -> torch.Tensor:
    """The vectors of the ordinary tokens, (V, H)."""
    ordinary = [token for token in range(len(loaded.tokenizer)) if token not in loaded.tokenizer.all_special_ids]
    return loaded.model.get_input_embeddings().weight.detach()[ordinary].double()


def test_the_vectors_are_the_principal_components_of_what_the_base_computes_for_each_token_alone(loaded, alone):
    found = table_of(loaded)
    variances = torch.linalg.eigvalsh(alone.T @ alone).flip(0)[:8]
    torch.testing.assert_close(
        (found.T @ found) / found.square().sum(), torch.diag(variances) / variances.sum(), atol=1e-6, rtol=1e-3
    )


def test_as_many_numbers_as_the_states_have_keep_all_angles_between_tokens(tiny_encoder_dir, alone):
    found = table_of(of(tiny_encoder_dir, BASE_SIZE))
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(found[:-1], found[1:]), cosine(alone[:-1], alone[1:]), atol=1e-4, rtol=0)


def test_vectors_have_the_scale_of_states_and_special_tokens_are_zero(loaded):
    vectors = loaded.model.get_input_embeddings()(torch.arange(len(loaded.tokenizer))).detach()
    special = loaded.tokenizer.all_special_ids
    assert torch.equal(vectors[special], torch.zeros(len(special), 8))
    ordinary = [token for token in range(len(vectors)) if token not in special]
    assert float(vectors[ordinary].square().mean().sqrt()) == pytest.approx(1.0, abs=1e-3)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=12), st.lists(st.integers(0, 200), max_size=12), st.data())
def test_before_training_a_vector_does_not_depend_on_what_is_around_its_token(loaded, before, after, data):
    token = data.draw(st.integers(0, 200))
    row = torch.tensor([[*before, token, *after]])
    mask = torch.ones_like(row)
    mask[:, len(before) + 1 :] = data.draw(st.sampled_from([0, 1]))
    encoder = Encoder(loaded.model)
    assert torch.equal(encoder(row, mask)[0, len(before)], encoder(torch.tensor([[token]]), torch.ones(1, 1))[0, 0])


@pytest.fixture(scope="module")
def trained_pairs(tiny_encoder_dir: Path) -> Static:
    model = of(tiny_encoder_dir, pairs=997).model
    torch.nn.init.normal_(model.get_input_embeddings().pairs.weight, generator=torch.Generator().manual_seed(0))
    return model


@settings(max_examples=30)
@given(st.lists(st.integers(0, 200), min_size=2, max_size=12), st.data())
def test_once_trained_a_vector_depends_on_its_token_and_the_one_before_it_alone(trained_pairs, ids, data):
    encoder = Encoder(trained_pairs)
    row = torch.tensor([ids])
    at = data.draw(st.integers(1, len(ids) - 1))
    changed, other = row.clone(), data.draw(st.integers(0, 200))
    changed[0, data.draw(st.integers(0, len(ids) - 1))] = other
    same = torch.equal(changed[0, at - 1 : at + 1], row[0, at - 1 : at + 1])
    states, others = (encoder(some, torch.ones_like(some))[0, at] for some in (row, changed))
    assert torch.equal(states, others) == same


def test_the_first_token_ends_no_pair(trained_pairs, tiny_encoder_dir):
    tokens = torch.arange(50)
    alone = trained_pairs.get_input_embeddings()(tokens[:, None]).squeeze(1)
    table = of(tiny_encoder_dir, pairs=0).model.get_input_embeddings()
    assert torch.equal(alone, table(tokens))


def test_without_pairs_there_is_one_table(tiny_encoder_dir):
    assert set(of(tiny_encoder_dir, pairs=0).model.state_dict()) == {"embeddings.weight"}


def test_a_static_encoder_saved_before_there_were_pairs_still_loads(tiny_encoder_dir, tmp_path: Path):
    old = of(tiny_encoder_dir, pairs=0)
    del old.model.config.document["pairs"]
    save_encoder(old.model, old.tokenizer, tmp_path / "static")
    assert load_encoder_dir(tmp_path / "static").fingerprint == old.fingerprint


def test_a_saved_static_encoder_loads_as_the_same_one(loaded, tmp_path: Path):
    save_encoder(loaded.model, loaded.tokenizer, tmp_path / "static")
    again = load_encoder_dir(tmp_path / "static")
    assert isinstance(again.model, Static)
    assert again.fingerprint == loaded.fingerprint == encoder_fingerprint(again.model)
    assert again.tokenizer("a good day") == loaded.tokenizer("a good day")
    assert max_positions(again.model) is None


def test_distilling_the_same_base_twice_gives_the_same_encoder(loaded, tiny_encoder_dir):
    assert of(tiny_encoder_dir).fingerprint == loaded.fingerprint


def test_the_whole_table_is_trained_at_the_rate_of_the_head(tiny_encoder_dir):
    encoder = Encoder(of(tiny_encoder_dir).model, "all")
    head = build_head("linear", Config().linear.head, input_size=8, num_classes=2)
    training = Config().linear.train
    optimizer = build_optimizer(Classifier(encoder, head), training)
    assert {group["lr"] for group in optimizer.param_groups} == {training.learning_rate}
    trained = {id(value) for group in optimizer.param_groups for value in group["params"]}
    tables = encoder.model.get_input_embeddings()
    assert {id(tables.weight), id(tables.pairs.weight)} <= trained


@pytest.mark.parametrize("values", [{}, {"trainable_layers": 0}, {"trainable_layers": "all"}])
def test_a_static_encoder_is_trained_even_if_it_replaces_a_frozen_one(values):
    assert EncoderConfig(name="static", **values).trainable_layers == "all"
    assert EncoderConfig(name="mini").trainable_layers == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trainable_layers": 2}, "no layers"),
        ({"static": {"base": "scratch"}}, "trained encoder"),
        ({"static": {"base": "static"}}, "trained encoder"),
    ],
)
def test_settings_that_a_static_encoder_cannot_have_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        EncoderConfig(name="static", **values)


def test_more_numbers_than_the_states_of_the_base_have_are_refused(tiny_encoder_dir):
    with pytest.raises(ConfigError, match=r"static\.size is 17, but the states of .* have 16"):
        of(tiny_encoder_dir, 17)


def test_a_base_that_is_not_there_is_reported_by_its_name(tmp_path: Path):
    with pytest.raises(EncoderError, match="nowhere"):
        of(tmp_path / "nowhere" / "at" / "all")


def test_int8_is_refused(loaded):
    with pytest.raises(EncoderError, match=r"int8 .* not this static"), Encoder(loaded.model).prepared("int8"):
        pass


def test_the_settings_of_static_count_only_where_they_are_used():
    """Else every model of an earlier version would seem to need another training."""
    assert "static" not in EncoderConfig(name="mini").facts()
    assert EncoderConfig(name="static").facts()["static"] == {"base": "mini", "size": 64, "pairs": 32_768}


def test_an_explanation_starts_from_a_baseline_without_the_words_and_gives_words_the_pairs_they_are_in(
    trained_pairs, loaded
):
    head = build_head("linear", Config().linear.head, input_size=8, num_classes=2)
    classifier = Classifier(Encoder(trained_pairs), head).eval()
    tokenizer = loaded.tokenizer
    tokenized = tokenize(["good day", "day good", "day"], tokenizer, max_length=64, max_windows=1)
    special = np.array(tokenizer.all_special_ids)
    two, other, one = attribute(
        classifier,
        tokenized,
        lambda logits: np.zeros(len(logits), dtype=int),
        compute=Compute(torch.device("cpu"), "fp32"),
        special=special,
        baseline_id=tokenizer.mask_token_id,
    )
    assert two.baseline == pytest.approx(other.baseline, abs=1e-6)
    assert two.logits[0] != pytest.approx(other.logits[0], abs=1e-3)
    at = 0
    for found, length in zip((two, other, one), tokenized.lengths, strict=True):
        ids = tokenized.ids[at : at + length]
        at += length
        assert not found.weights[np.isin(ids, special)].any()
        assert found.weights.sum() == pytest.approx(float(found.logits[0]) - found.baseline, abs=1e-3)
