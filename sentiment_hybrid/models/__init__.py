"""Heads by name: their classes, their configurations, and new heads."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sentiment_hybrid.config.sections import Section
from sentiment_hybrid.errors import ConfigError, ModelError
from sentiment_hybrid.heads import HEADS

if TYPE_CHECKING:
    from torch import nn


def head_class(name: str) -> type[nn.Module]:
    """The class of a head. Raises ConfigError for an unknown name, with a suggestion."""
    if name not in HEADS:
        near = difflib.get_close_matches(name, HEADS, n=1)
        mean = f"Did you mean `{near[0]}`? " if near else ""
        raise ConfigError(f"there is no model called {name!r}", hint=f"{mean}Known models: {', '.join(HEADS)}.")
    found: type[nn.Module] = resolve_name(HEADS[name].module)
    return found


def head_config(name: str, values: Mapping[str, Any]) -> Section:
    """The head's config section from plain values, as in ``model.json``.

    Raises:
        ConfigError: the name is unknown.
        ModelError: values are invalid; all of them are listed.
    """
    head_class(name)
    section: type[Section] = resolve_name(HEADS[name].config)
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        misfits = "; ".join(f"{'.'.join(map(str, item['loc'])) or name}: {item['msg']}" for item in error.errors())
        raise ModelError(
            f"the stored settings of the {name} head are not valid in this version: {misfits}",
            hint="The model was made by another version, or its files were edited: train it again.",
        ) from error


def build_head(name: str, head_config: Section, *, input_size: int, num_classes: int) -> nn.Module:
    """A head with new weights; models/classifier.py describes its ``forward``.

    Args:
        input_size: size of a token state, H.

    Raises:
        ConfigError: the name is unknown.
    """
    return head_class(name)(head_config, input_size=input_size, num_classes=num_classes)


def renew_output(head: nn.Module, num_classes: int) -> None:
    """Replace the output layer of a head by a new one for other classes, in place."""
    from torch import nn

    # The output layer is the last linear layer of every head; a test checks all heads.
    name, old = [(name, module) for name, module in head.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, attribute = name.rpartition(".")
    setattr(head.get_submodule(parent), attribute, nn.Linear(old.in_features, num_classes))
