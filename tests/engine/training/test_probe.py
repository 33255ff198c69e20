"""Rates of a config: each kind of work is done for real, counted in real tokens, and leaves the encoder as it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sentiment_hybrid.data.store import Examples
from sentiment_hybrid.engine.device import resolve
from sentiment_hybrid.engine.states.shards import stored_keys
from sentiment_hybrid.engine.states.store import StateStore, window_keys
from sentiment_hybrid.engine.training.probe import Probe
from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.models.encoder.hub import load_encoder
from sentiment_hybrid.models.encoder.module import encoder_fingerprint

from ..conftest import toy_texts


@pytest.fixture
def make_probe(small_config, tmp_path):
    def make(model="linear", *, trainable_layers=0, texts=200, seconds=0.02):
        encoder = small_config.encoder.model_copy(update={"trainable_layers": trainable_layers})
        config = small_config.model_copy(update={"encoder": encoder})
        examples = Examples("train", *toy_texts(texts), np.arange(texts))
        compute = resolve("cpu", "fp32")
        return Probe(config, model, load_encoder(encoder), examples, ("no", "yes"), compute, seconds, tmp_path)

    return make


@pytest.mark.parametrize("trainable_layers", [0, 1, "all"])
def test_every_kind_of_work_has_a_rate_and_the_encoder_stays_as_it_was(make_probe, trainable_layers):
    probe = make_probe("lstm", trainable_layers=trainable_layers)
    before = encoder_fingerprint(probe.loaded.model)
    rates = [*probe.prediction("fp32"), *probe.training("fp32")]
    stored = [] if trainable_layers == "all" else ["encode"]
    assert [rate.work for rate in rates] == ["predict", *stored, "train", "validate"]
    assert all(rate.tokens > rate.texts > 0 and rate.precision == "fp32" for rate in rates)
    if trainable_layers == 0:
        assert encoder_fingerprint(probe.loaded.model) == before


def test_parts_grow_until_one_fills_the_time_and_none_is_measured_twice(make_probe, monkeypatch):
    probe = make_probe(texts=2000, seconds=1.0)
    now = [0.0]
    monkeypatch.setattr("sentiment_hybrid.engine.training.probe.time.perf_counter", lambda: now[0])
    seen = []

    def work(texts):
        seen.append(texts)
        now[0] += 0.001 * len(texts)

    rate, used = probe._growing("encode", probe._session("fp32"), work)
    assert list(itertools.chain.from_iterable(seen)) == probe.examples.texts[:used]
    assert 0.5 <= 0.001 * len(seen[-1]) <= 1.1
    assert rate.texts == pytest.approx(1000)


@pytest.mark.parametrize("texts", [1, 3])
def test_few_texts_are_measured_too(make_probe, texts):
    probe = make_probe(texts=texts)
    assert all(rate.texts > 0 for rate in [*probe.prediction("fp32"), *probe.training("fp32")])


def test_states_that_cannot_be_written_are_no_rate(make_probe, monkeypatch):
    monkeypatch.setattr(StateStore, "ensure", lambda *_, **__: None)
    with pytest.raises(OutputError, match="no token states"):
        make_probe().training("fp32")


def test_looking_for_stored_windows_leaves_a_damaged_shard_where_it_is(make_session):
    session = make_session()
    tokenized = session.tokenize(["good day", "bad day"])
    session.states.ensure(tokenized, token_budget=64)
    assert stored_keys(session.states.folder) == set(window_keys(tokenized).tolist())
    for keys in session.states.folder.glob("shard-*/keys.npy"):
        keys.write_bytes(b"no array")
    assert stored_keys(session.states.folder) == set()
    assert all(keys.read_bytes() == b"no array" for keys in session.states.folder.glob("shard-*/keys.npy"))
