"""Rates of a config: each kind of work is done for real, counted in real tokens, and leaves the encoder as it was."""

from __future__ import annotations

import itertools

import pytest

from sentiment_hybrid.engine.bench import Bench
from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.models.encoder.hub import load_encoder
from sentiment_hybrid.models.encoder.module import encoder_fingerprint

from .conftest import toy_texts


@pytest.fixture
def make_bench(small_config, tmp_path):
    def make(model="linear", *, trainable_layers=0, texts=200, seconds=0.02):
        encoder = small_config.encoder.model_copy(update={"trainable_layers": trainable_layers})
        config = small_config.model_copy(update={"encoder": encoder})
        made, labels = toy_texts(texts)
        loaded = load_encoder(encoder)
        place = encoder.name
        return Bench(config, model, loaded, made, labels, ("no", "yes"), "cpu", seconds, tmp_path / "bench", place)

    return make


@pytest.mark.parametrize("trainable_layers", [0, 1, "all"])
def test_every_kind_of_work_has_a_rate_and_the_encoder_stays_as_it_was(make_bench, trainable_layers):
    bench = make_bench("lstm", trainable_layers=trainable_layers)
    before = encoder_fingerprint(bench.loaded.model)
    for work in ("encode", "validate", "predict", "train"):
        rate = getattr(bench, work)("fp32")
        assert (rate.work, rate.precision) == (work, "fp32")
        assert rate.tokens > rate.texts > 0
    if trainable_layers == 0:
        assert encoder_fingerprint(bench.loaded.model) == before


def test_a_share_is_given_where_the_encoder_is_the_work(make_bench):
    bench = make_bench()
    assert 0 < bench.encode("fp32").share < 1
    assert bench.validate("fp32").share is None, "a head over stored states"
    assert bench.train("fp32").share is None
    assert make_bench(trainable_layers="all").train("fp32").share > 0


def test_parts_grow_until_one_fills_the_time_and_none_is_measured_twice(make_bench, monkeypatch):
    bench = make_bench(texts=2000, seconds=1.0)
    now = [0.0]
    monkeypatch.setattr("sentiment_hybrid.engine.bench.time.perf_counter", lambda: now[0])
    parts = []

    def work(part):
        parts.append((part.start, part.stop))
        now[0] += 0.001 * (part.stop - part.start)

    part, seconds = bench._grown(work)
    assert parts[0] == (0, 16)
    assert all(one[1] == two[0] for one, two in itertools.pairwise(parts))
    assert seconds == pytest.approx(0.001 * (part.stop - part.start))
    assert 0.5 <= seconds <= 1.0


def test_few_texts_are_measured_too(make_bench):
    bench = make_bench(texts=3)
    assert [getattr(bench, work)("fp32").texts > 0 for work in ("encode", "validate", "predict", "train")] == [True] * 4


def test_whole_epochs_are_counted_so_that_no_length_is_preferred(make_bench):
    bench = make_bench(trainable_layers="all", texts=40, seconds=0.0)
    rate = bench.train("fp32")
    # No time at all: the least that is measured is one step of batch_size texts, the first ones.
    assert rate.tokens / rate.texts == pytest.approx(bench.tokenized.lengths[:8].mean())


def test_states_that_cannot_be_written_are_no_rate(make_bench, monkeypatch):
    from sentiment_hybrid.engine.states.store import StateStore

    monkeypatch.setattr(StateStore, "ensure", lambda *_, **__: None)
    with pytest.raises(OutputError, match="no states"):
        make_bench().encode("fp32")
