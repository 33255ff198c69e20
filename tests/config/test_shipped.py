"""The shipped configs: short, commented, valid."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sentiment_hybrid import paths
from sentiment_hybrid.config.describe import section_at
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import SHARED, Config, ConfigFile
from sentiment_hybrid.config.syntax import parse

NAMES = ("default", "predecessor", "quickstart")


def text(name: str) -> str:
    return paths.shipped_configs()[name].read_text(encoding="utf-8")


def values(document: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of each setting; what is inside a setting's value (a map, a search space) is not one."""
    if prefix and section_at(prefix.split(".")) is None:
        return {prefix: document}
    places = {f"{prefix}.{name}".lstrip("."): inner for name, inner in document.items()}
    return {key: value for place, inner in places.items() for key, value in values(inner, place).items()}


def inherited(key: str) -> bool:
    section, _, rest = key.partition(".")
    return section in SHARED.get(rest.partition(".")[0], ())


def test_the_named_ones_are_shipped() -> None:
    assert set(NAMES) <= paths.shipped_configs().keys()


@pytest.mark.parametrize("name", paths.shipped_configs())
def test_it_is_valid_and_begins_with_what_it_is_for(name: str) -> None:
    assert load_config(name)
    assert text(name).startswith("# ")
    assert max(map(len, text(name).splitlines())) <= 120


def test_default_yaml_names_every_setting_once() -> None:
    every = {key for key in values(ConfigFile().model_dump(mode="json")) if not inherited(key)}
    assert {key for key in values(parse(text("default"))) if not inherited(key)} == every


def test_every_setting_of_default_yaml_is_commented() -> None:
    settings = [line for line in text("default").splitlines() if re.match(r" {2,4}[a-z_]+: *[^ {#]", line)]
    assert len(settings) > 90
    assert [line for line in settings if "  # " not in line] == []


@pytest.mark.parametrize("name", sorted(paths.shipped_configs().keys() - {"default"}))
def test_the_others_contain_only_what_differs_from_default_yaml(name: str) -> None:
    defaults = values(ConfigFile().model_dump(mode="json"))
    for key, value in values(parse(text(name))).items():
        assert "search_space" in key or value != defaults[key], key


def test_default_yaml_holds_the_defaults() -> None:
    assert load_config("default") == Config()


@pytest.mark.parametrize("model", ["lstm", "han"])
def test_predecessor_yaml_keeps_the_predecessors_values(model: str) -> None:
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
