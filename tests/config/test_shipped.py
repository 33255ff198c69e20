"""The shipped configs: complete, commented, valid."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sentiment_hybrid import paths
from sentiment_hybrid.config.describe import field_at
from sentiment_hybrid.config.load import load_config, read, shipped
from sentiment_hybrid.config.schema import Config

NAMES = ("default", "quickstart", "predecessor")


def keys(value: Any, prefix: str = "") -> set[str]:
    """Dotted keys of settings; what lies inside a setting's value (a map, a search space) is not one."""
    if not isinstance(value, dict) or (prefix and field_at(prefix.split(".")) is None):
        return set()
    below = {key for name, inner in value.items() for key in keys(inner, f"{prefix}.{name}".lstrip("."))}
    return below | ({prefix} if prefix else set())


def test_the_named_ones_are_shipped() -> None:
    assert set(NAMES) <= set(shipped())


@pytest.mark.parametrize("name", shipped())
def test_it_is_valid_and_names_every_setting(name: str) -> None:
    config = load_config(name)
    document, _ = read(name)
    assert keys(document) == keys(config.model_dump(mode="json"))


@pytest.mark.parametrize("name", shipped())
def test_every_line_is_commented_there_or_above(name: str) -> None:
    text = (paths.shipped_configs() / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    before = ""
    for line in text.splitlines():
        inside_a_space = re.match(r" {6}", line)
        if line.strip() and not line.lstrip().startswith("#") and not inside_a_space:
            assert "  # " in line or before.lstrip().startswith("#"), line
        assert len(line) <= 120
        before = line


def test_default_yaml_holds_the_defaults() -> None:
    assert load_config("default") == Config()


@pytest.mark.parametrize("model", ["lstm", "han"])
def test_seed_yaml_keeps_the_predecessors_values(model: str) -> None:
    config = load_config("predecessor")
    section = config.model(model)
    train, hpo = section.train, section.hpo
    assert (config.encoder.name, config.encoder.trainable_layers, config.encoder.max_length) == ("roberta-base", 0, 128)
    assert (train.learning_rate, train.weight_decay, train.batch_size, train.accumulation) == (2e-5, 0.01, 16, 2)
    assert (train.epochs, train.warmup_steps, train.schedule, train.sample_size) == (20, 100, "linear", 200_000)
    assert (config.data.test_size, config.data.text_column) == (0.2, "text_clean")
    assert (hpo.n_trials, hpo.epochs, hpo.sample_size) == (50, 10, 10_000)
    space = hpo.model_dump()["search_space"]
    assert (space["learning_rate"]["low"], space["learning_rate"]["high"], space["learning_rate"]["log"]) == (
        1e-6,
        5e-5,
        True,
    )
    assert (space["dropout"]["low"], space["dropout"]["high"]) == (0.1, 0.5)
    assert (space["weight_decay"]["low"], space["weight_decay"]["high"]) == (0, 0.1)
    assert space["hidden"]["choices"] == ((128, 256, 512) if model == "lstm" else (128, 256, 384))
    assert (space["layers"]["low"], space["layers"]["high"]) == ((1, 3) if model == "lstm" else (1, 2))
    assert ("attention_heads" in space) == (model == "lstm")
    assert (section.head.hidden, section.head.dropout) == (256, 0.3)
    assert section.head.layers == (2 if model == "lstm" else 1)


def test_quickstart_needs_no_network_and_stays_in_its_folder() -> None:
    config = load_config("quickstart")
    assert (config.data.source, config.encoder.name) == ("sample", "mini")
    assert config.data.normalizer == "tweet"
    for path in config.paths.model_dump().values():
        assert path is not None
        assert path.parts[0] == "quickstart"
