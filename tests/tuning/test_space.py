"""A search space becomes Optuna's, and a trial's parameters become a Config that the schema has accepted."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import MODEL_NAMES, Config
from sentiment_hybrid.errors import ConfigError
from sentiment_hybrid.tuning.space import check_space, distributions, fragment, with_params


def config(space: dict[str, Any], **more: Any) -> Config:
    return Config.model_validate({"lstm": {"hpo": {"search_space": space}}, **more})


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_every_tunable_setting_goes_where_it_belongs(model: str) -> None:
    for name in Config().model(model).hpo.tunable():
        ((section, below),) = fragment(model, {name: 1}).items()
        part = next(iter(below)) if section == model else ""
        there = getattr(Config(), section)
        fields = type(getattr(there, part) if part else there).model_fields
        assert name in fields


def test_parameters_change_what_they_name_and_nothing_else() -> None:
    before = load_config("quickstart")
    after = with_params(before, "lstm", {"hidden": 12, "learning_rate": 0.02, "max_length": 48, "dropout": 0.25})
    assert (after.lstm.head.hidden, after.lstm.head.dropout) == (12, 0.25)
    assert (after.lstm.train.learning_rate, after.encoder.max_length) == (0.02, 48)
    back = {
        "hidden": before.lstm.head.hidden,
        "learning_rate": before.lstm.train.learning_rate,
        "max_length": before.encoder.max_length,
        "dropout": before.lstm.head.dropout,
    }
    assert with_params(after, "lstm", back) == before


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"hidden": 5, "attention_heads": 4}, "must divide"),
        ({"learning_rate": 3.0}, "learning_rate"),
        ({"sample_size": 3}, "is not a hyperparameter of lstm"),
    ],
)
def test_parameters_that_do_not_go_together_are_an_error_with_the_reason(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        with_params(Config(), "lstm", params)


def test_a_frozen_scratch_encoder_is_no_trial() -> None:
    scratch = Config.model_validate({"encoder": {"name": "scratch", "trainable_layers": "all"}})
    with pytest.raises(ConfigError, match="scratch"):
        with_params(scratch, "lstm", {"trainable_layers": 0})


def test_each_kind_of_range_is_optunas() -> None:
    space = config(
        {
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "dropout": {"type": "float", "low": 0.1, "high": 0.5, "step": 0.1},
            "layers": {"type": "int", "low": 1, "high": 3},
            "hidden": {"type": "int", "low": 8, "high": 64, "log": True},
            "class_weights": {"type": "categorical", "choices": ["none", "balanced"]},
            "clip_norm": {"type": "categorical", "choices": [None, 1.0]},
        }
    ).lstm.hpo.search_space
    assert distributions(space) == {
        "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "dropout": optuna.distributions.FloatDistribution(0.1, 0.5, step=0.1),
        "layers": optuna.distributions.IntDistribution(1, 3),
        "hidden": optuna.distributions.IntDistribution(8, 64, log=True),
        "class_weights": optuna.distributions.CategoricalDistribution(("none", "balanced")),
        "clip_norm": optuna.distributions.CategoricalDistribution((None, 1.0)),
    }


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "empty"),
        ({"encoder_learning_rate": {"type": "float", "low": 1e-6, "high": 1e-4}}, "has no effect"),
        ({"hidden": {"type": "categorical", "choices": [5, 7]}}, "no combination .* must divide"),
    ],
)
def test_a_space_in_which_there_is_nothing_to_find_is_refused(space: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_space(config(space), "lstm")


def test_the_shipped_spaces_are_usable() -> None:
    for model in MODEL_NAMES:
        check_space(Config(), model)
        check_space(load_config("predecessor"), model)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "int", "low": 1, "high": 8, "log": True, "step": 2}, "log and step"),
        ({"type": "int", "low": 1, "high": 3, "step": 5}, "step"),
        ({"type": "categorical", "choices": [1, 2, 1]}, "listed twice"),
        ({"type": "int", "low": 3, "high": 3}, "must be below"),
    ],
)
def test_a_range_that_optuna_would_refuse_or_bend_is_refused_by_the_schema(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config({"layers": entry})
