"""A model on a static encoder: trained, tested, explained, exported and loaded like any other."""

from __future__ import annotations

import numpy as np
import pytest

from sentiment_hybrid import paths
from sentiment_hybrid.commands import export, fetch, pretrain, train
from sentiment_hybrid.engine.inference import testing
from sentiment_hybrid.engine.inference.model_directory import load_model, read_info
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import ModelError, UsageError

TEXTS = ["what a good and lovely day", "the film was bad", "awful old film", "great"]
#: Longer than the windows of the tiny encoder that the vectors are from.
STATIC = ("encoder.name=static", "encoder.static.size=8", "encoder.max_length=64")


@pytest.fixture
def static(project):
    """The project with vectors from its tiny encoder."""
    base = project.config().encoder.name
    training = ["linear.train.epochs=20", "linear.train.learning_rate=0.05", "linear.train.patience=null"]
    return project.config(*STATIC, f"encoder.static.base={base}", *training)


def test_a_linear_model_learns_the_words_that_decide_and_works_from_its_directory(static, tmp_path):
    pytest.importorskip("onnxruntime")
    done = train.run(static, "linear", test=False)
    assert read_info(done.model_dir).encoder_inside
    predictor = Predictor(done.model_dir)
    assert [one.label for one in predictor.predict(TEXTS)] == ["positive", "negative", "negative", "positive"]
    explained = predictor.explain("the film was bad", label="negative")
    assert max(explained.words, key=lambda word: word.weight).text == "bad"
    with pytest.raises(ModelError, match="no matrix products to quantize"):
        export.run(static, "linear", quantize="int8", output=tmp_path / "int8")
    exported = export.run(static, "linear", output=tmp_path / "onnx", rows=20)
    graph = Predictor(exported.directory)
    np.testing.assert_allclose(graph.predict_proba(TEXTS), predictor.predict_proba(TEXTS), atol=1e-5)


def test_a_sequence_head_is_trained_with_its_vectors(static):
    done = train.run(static, "lstm", test=False)
    assert read_info(done.model_dir).trainable_layers == "all"
    assert len(Predictor(done.model_dir).predict(TEXTS)) == len(TEXTS)


def test_a_model_on_vectors_from_mini_is_known_to_be_from_mini(static, monkeypatch):
    base = static.encoder.static.base
    loaded = load_model(train.run(static, "linear", test=False).model_dir)
    assert loaded.encoder.model.config.distilled_from == base
    assert not testing._is_from_mini(loaded)
    monkeypatch.setattr(paths, "MINI", base)
    assert testing._is_from_mini(loaded)


def test_fetch_looks_for_the_base(static):
    (found,) = fetch.run(static, what=["encoder"], offline=True).parts
    assert found.where == static.encoder.static.base


def test_a_static_encoder_is_not_pretrained(static):
    with pytest.raises(UsageError, match="without layers") as caught:
        pretrain.run(static)
    assert f"pretrain.base={static.encoder.static.base}" in caught.value.hint
