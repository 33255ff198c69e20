"""Sizes that no encoder has are refused before anything is built of them, wherever a config.json is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sentiment_hybrid.errors import EncoderError
from sentiment_hybrid.models.encoder import hub, sizes
from sentiment_hybrid.models.encoder.hub import load_encoder_dir

ABSURD: list[tuple[str, Any]] = [
    ("num_hidden_layers", 10**7), ("hidden_size", 10**9), ("intermediate_size", 10**9), ("vocab_size", 10**9),
    ("max_position_embeddings", 10**9), ("type_vocab_size", 10**9), ("num_attention_heads", 10**9),
    ("pad_token_id", 10**9), ("num_attention_heads", 3), ("hidden_size", "768"), ("layer_norm_eps", float("nan")),
    ("hidden_dropout_prob", -1.0), ("num_hidden_layers", True), ("vocab_size", 1.5),
]  # fmt: skip


@pytest.fixture
def local(tiny_encoder_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder_dir, tmp_path / "mine"))


def change(directory: Path, **fields: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(("field", "value"), ABSURD)
def test_a_config_that_cannot_be_true_is_refused_with_its_field(local: Path, field: str, value: Any) -> None:
    change(local, **{field: value})
    with pytest.raises(EncoderError, match=rf"config.json of .*mine cannot be true.*{field}") as caught:
        load_encoder_dir(local)
    assert caught.value.hint


def test_a_family_that_transformers_computes_is_held_to_the_same_sizes(local: Path) -> None:
    (local / "config.json").write_text(json.dumps({"model_type": "distilbert", "n_layers": 10**7}))
    with pytest.raises(EncoderError, match="num_hidden_layers: Input should be less"):
        load_encoder_dir(local)


def test_a_config_of_far_more_weights_than_there_are_builds_none(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    (local / "config.json").write_text(json.dumps({"model_type": "distilbert", "n_layers": 100}))
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *_, **__: pytest.fail("weights were built"))
    with pytest.raises(EncoderError, match=r"describes 7\d\d,\d\d\d,\d\d\d weights, but its files hold"):
        load_encoder_dir(local)


@pytest.mark.parametrize("fields", [{"hidden_act": ["gelu"]}, {"model_type": ["bert"]}, {"model_type": "no such"}])
def test_what_transformers_cannot_read_is_an_encoder_error(local: Path, fields: dict[str, Any]) -> None:
    change(local, **fields)
    with pytest.raises(EncoderError, match="mine cannot be loaded"):
        load_encoder_dir(local)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", '"roberta"', "null"])
def test_a_config_that_is_no_object_is_refused(local: Path, content: str) -> None:
    (local / "config.json").write_text(content)
    with pytest.raises(EncoderError, match="mine"):
        load_encoder_dir(local)


def test_published_encoders_are_within_the_sizes(shared: Path) -> None:
    for file in (shared / "encoders").glob("*/config.json"):
        sizes.check_sizes(json.loads(file.read_text()), name=file.parent.name)
    large = {"hidden_size": 4096, "num_hidden_layers": 48, "vocab_size": 250_880, "max_position_embeddings": -1}
    sizes.check_sizes(large, name="large")
    assert hub.check_sizes is sizes.check_sizes
