"""Converts the search space of a config to Optuna's distributions, and the parameters of a trial to a config."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.config.errors import explain
from sentiment_hybrid.config.schema import CategoricalSpace, Config, FloatSpace, IntSpace, SearchSpace, Train
from sentiment_hybrid.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_DRAWS = 64  # random combinations tried to see whether any is valid


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each hyperparameter."""
    from optuna import distributions as optuna

    found: dict[str, BaseDistribution] = {}
    for name, entry in space.items():
        if isinstance(entry, FloatSpace):
            found[name] = optuna.FloatDistribution(entry.low, entry.high, log=entry.log, step=entry.step)
        elif isinstance(entry, IntSpace):
            found[name] = optuna.IntDistribution(entry.low, entry.high, log=entry.log, step=entry.step)
        else:
            found[name] = optuna.CategoricalDistribution(entry.choices)
    return found


def with_params(config: Config, model: str, params: Mapping[str, Any]) -> Config:
    """The config with the given hyperparameters, validated by the schema.

    Raises:
        ConfigError: the combination is invalid; every problem is listed.
    """
    from pydantic import ValidationError

    document = config.model_dump(mode="json")
    for section, values in fragment(model, params).items():
        for name, value in values.items():
            place = document[section]
            place[name] = {**place[name], **value} if section == model else value
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        problems = explain(error, document, {})
        raise ConfigError(
            f"invalid combination of parameters: {'; '.join(problems)}", hint=f"Change {model}.hpo.search_space."
        ) from error


def fragment(model: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as part of a config file, by section.

    Raises:
        ConfigError: one is not a hyperparameter of this model.
    """
    sections: dict[str, Any] = {}
    head = type(Config().model(model).head).model_fields
    known = Config().model(model).hpo.tunable()
    for name, value in params.items():
        if name not in known:
            raise ConfigError(
                f"{name} is not a hyperparameter of {model}", hint=f"Choose from: {', '.join(sorted(known))}."
            )
        if name in head or name in Train.model_fields:
            part = "head" if name in head else "train"
            sections.setdefault(model, {}).setdefault(part, {})[name] = value
        else:
            sections.setdefault("encoder", {})[name] = value
    return sections


def check_space(config: Config, model: str) -> None:
    """Refuse a search that is disabled or has no valid search space, before anything runs.

    Raises:
        UsageError, ConfigError: in that order.
    """
    if not config.model(model).hpo.enabled:
        raise UsageError(
            f"the search for {model} is disabled ({model}.hpo.enabled is false)",
            hint=f"Enable it with --set {model}.hpo.enabled=true, or train with `senthy train --model {model}`.",
        )
    space = config.model(model).hpo.search_space
    place = f"{model}.hpo.search_space"
    if not space:
        raise ConfigError(
            f"{place} is empty", hint="`senthy config show --config default` shows the default search space."
        )
    frozen = config.encoder.trainable_layers == 0 and "trainable_layers" not in space
    if frozen and "encoder_learning_rate" in space:
        raise ConfigError(
            f"{place}.encoder_learning_rate has no effect while encoder.trainable_layers is 0",
            hint="Remove it, or search trainable_layers too.",
        )
    draw = random.Random(0)
    failure: ConfigError | None = None
    for _ in range(_DRAWS):
        try:
            with_params(config, model, {name: _any_of(entry, draw) for name, entry in space.items()})
        except ConfigError as error:
            failure = error
        else:
            return
    assert failure is not None
    raise ConfigError(f"no combination of {place} is valid: {failure.message}", hint=failure.hint)


def largest(entry: FloatSpace | IntSpace | CategoricalSpace) -> float | None:
    """The largest number in an entry; None if it has no numbers."""
    if not isinstance(entry, CategoricalSpace):
        return entry.high
    return max((one for one in entry.choices if isinstance(one, int | float)), default=None)


def _any_of(entry: FloatSpace | IntSpace | CategoricalSpace, draw: random.Random) -> Any:
    if isinstance(entry, CategoricalSpace):
        return draw.choice(entry.choices)
    if isinstance(entry, IntSpace):
        return draw.randrange(entry.low, entry.high + 1, entry.step)
    return draw.uniform(entry.low, entry.high)
