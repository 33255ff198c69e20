"""A config's search space as Optuna's distributions, and a trial's parameters as a Config again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.config.errors import explain
from sentiment_hybrid.config.schema import CategoricalSpace, Config, FloatSpace, IntSpace, SearchSpace, Train
from sentiment_hybrid.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_DRAWS = 64  # of a space, to see that it holds anything usable


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each hyper-parameter."""
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
    """The config with each hyper-parameter where it belongs, through the same schema as any other.

    Raises:
        ConfigError: the combination is not usable; every problem is named.
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
            f"these parameters do not go together: {'; '.join(problems)}", hint=f"Mend {model}.hpo.search_space."
        ) from error


def fragment(model: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as a fragment of a config file: the sections of the model and of the encoder, what is tuned only.

    Raises:
        ConfigError: one is no hyper-parameter of this model.
    """
    sections: dict[str, Any] = {}
    head = type(Config().model(model).head).model_fields
    known = Config().model(model).hpo.tunable()
    for name, value in params.items():
        if name not in known:
            raise ConfigError(f"{name} is no hyper-parameter of {model}", hint=f"Known: {', '.join(sorted(known))}.")
        if name in head or name in Train.model_fields:
            part = "head" if name in head else "train"
            sections.setdefault(model, {}).setdefault(part, {})[name] = value
        else:
            sections.setdefault("encoder", {})[name] = value
    return sections


def check_space(config: Config, model: str) -> None:
    """Refuse a search that is switched off, or that has nothing to find, before anything runs.

    Raises:
        UsageError, ConfigError: in that order.
    """
    if not config.model(model).hpo.enabled:
        raise UsageError(
            f"{model}.hpo.enabled is false: a search of {model} is switched off",
            hint=f"Switch it on with --set {model}.hpo.enabled=true, or train with `senthy train --model {model}`.",
        )
    space = config.model(model).hpo.search_space
    place = f"{model}.hpo.search_space"
    if not space:
        raise ConfigError(
            f"{place} is empty: nothing to search", hint="`senthy config show --config default` shows the default one."
        )
    frozen = config.encoder.trainable_layers == 0 and "trainable_layers" not in space
    if frozen and "encoder_learning_rate" in space:
        raise ConfigError(
            f"{place}.encoder_learning_rate changes nothing while encoder.trainable_layers is 0",
            hint="Take it out, or search trainable_layers too.",
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
    raise ConfigError(f"no combination of {place} is usable; {failure.message}", hint=failure.hint)


def largest(entry: FloatSpace | IntSpace | CategoricalSpace) -> float | None:
    """The largest number that an entry can give; None where it gives none."""
    if not isinstance(entry, CategoricalSpace):
        return entry.high
    return max((one for one in entry.choices if isinstance(one, int | float)), default=None)


def _any_of(entry: FloatSpace | IntSpace | CategoricalSpace, draw: random.Random) -> Any:
    if isinstance(entry, CategoricalSpace):
        return draw.choice(entry.choices)
    if isinstance(entry, IntSpace):
        return draw.randrange(entry.low, entry.high + 1, entry.step)
    return draw.uniform(entry.low, entry.high)
